"""Makes our arrays out of a file's tensors, one array at a time.

Each is assembled where it will stay: a stacked array layer by layer, a table
by rows, an array that a mesh splits in the parts that this process's devices
hold. jax on a CPU takes the buffers over as they are.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from infoxlm_jax.checkpoint.importers.lazy_tensor import Tensor, Tensors, empty
from infoxlm_jax.checkpoint.importers.parameter_map import FORMS, Entry
from infoxlm_jax.checkpoint.importers.tensor_names import all_names
from infoxlm_jax.errors import InputError
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.config import EncoderConfig

Bounds = tuple[tuple[int, int], ...]  # (start, stop) of every axis
# Kept as stored but for padding: read by rows.
_TABLES = ("embed/token", "embed/position", "masked_lm/decoder")


def check_shapes(
  entry: Entry, tensors: Tensors, config: EncoderConfig, config_path: str
) -> None:
  """Raises InputError for the first tensor of another shape than expected.

  Args:
    entry: of an array whose tensors are all there.
    tensors: by the table's names.
    config: what the shapes must be.
    config_path: the file that states the shapes, for messages.
  """
  for name in all_names(entry, config):
    tensor = tensors[name]
    wanted = their_shape(entry, config, tensors)
    if tensor.shape != wanted:
      raise InputError(
        f"{tensor.file}: tensor {tensor.name} has shape"
        f" {list(tensor.shape)}, where {config_path} makes it {list(wanted)}"
        f"{_cause(entry, tensor.shape, wanted, config)}"
      )


def their_shape(
  entry: Entry, config: EncoderConfig, tensors: Tensors
) -> tuple[int, ...]:
  """The shape that each tensor of an entry must have."""
  d, f = config.hidden_size, config.ffn_size
  known: dict[str, tuple[int, ...]] = {
    "embed/token": (config.vocab_size, d),
    "embed/position": (config.max_positions + config.position_offset, d),
    "embed/type": (config.type_vocab_size, d),
    "layers/ffn_in/kernel": (f, d),
    "layers/ffn_in/bias": (f,),
    "layers/ffn_out/kernel": (d, f),
    "heads/masked_lm/bias": (config.vocab_size,),
    "heads/masked_lm/decoder": (config.vocab_size, d),
  }
  if entry.path in known:
    return known[entry.path]
  head, _, rest = entry.path.removeprefix("heads/").partition("/")
  if not entry.path.startswith("heads/") or rest.startswith(("dense", "norm")):
    out = d
  elif head == "pooler":
    out = d
  else:  # a head for labels: the file says how many
    stored_shape = tensors[entry.names[0]].shape
    out = stored_shape[0] if stored_shape else 0
  matrix = entry.form in ("matrix", "qkv_kernel", "out_kernel")
  return (out, d) if matrix else (out,)


def read(
  entry: Entry, tensors: Tensors, config: EncoderConfig, mesh: Mesh | None
) -> Any:
  """Our array of an entry: numpy without a mesh, else laid out over it.

  Raises:
    InputError: what Tensor.read_into raises.
  """
  shape = our_shape(entry, tensors, config)
  if mesh is None:
    whole = tuple((0, n) for n in shape)
    return _parts(entry, tensors, config, [whole])[whole]
  sharding = sharding_of(entry.path, shape, mesh)
  indices = sharding.addressable_devices_indices_map(shape).values()
  places = {_bounds(index, shape) for index in indices if index is not None}
  parts = _parts(entry, tensors, config, sorted(places))

  def part(index: tuple[slice, ...] | None) -> np.ndarray:
    assert index is not None
    return parts[_bounds(index, shape)]

  return jax.make_array_from_callback(shape, sharding, part)


def sharding_of(path: str, shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
  """Where the table of rules puts one array of the parameters."""
  leaf: Any = jax.ShapeDtypeStruct(shape, np.float32)
  for name in reversed(path.split("/")):
    leaf = {name: leaf}
  shardings = partitioning.shardings(leaf, mesh)
  (sharding,) = jax.tree.leaves(shardings)
  assert isinstance(sharding, NamedSharding)
  return sharding


def our_shape(
  entry: Entry, tensors: Tensors, config: EncoderConfig
) -> tuple[int, ...]:
  """The shape of our array, all layers on its first axis."""
  stored = [tensors[name].shape for name in _of_layer(entry, 0)]
  if entry.form == "vocab":
    return (config.padded_vocab, *stored[0][1:])
  parts = [np.broadcast_to(np.float32(0), shape) for shape in stored]
  one = FORMS[entry.form].ours(parts, config).shape
  return (config.num_layers, *one) if entry.layered else one


def _parts(
  entry: Entry,
  tensors: Tensors,
  config: EncoderConfig,
  places: Sequence[Bounds],
) -> dict[Bounds, np.ndarray]:
  """The values of our array at each of these places."""
  outs = {place: empty(tuple(b - a for a, b in place)) for place in places}
  if not entry.layered and entry.path.endswith(_TABLES):
    for place, out in outs.items():
      _read_rows(tensors[entry.names[0]], place, out)
    return outs
  form = FORMS[entry.form]
  for i in range(config.num_layers if entry.layered else 1):
    read = [tensors[name].read() for name in _of_layer(entry, i)]
    value = form.ours(read, config)
    for place, out in outs.items():
      if not entry.layered:
        out[...] = value[_slices(place)]
      elif place[0][0] <= i < place[0][1]:
        out[i - place[0][0]] = value[_slices(place[1:])]
  return outs


def _read_rows(tensor: Tensor, place: Bounds, out: np.ndarray) -> None:
  """Rows of a table; those below its end are padding: zeros."""
  (start, stop), rest = place[0], place[1:]
  assert all(a == 0 for a, _ in rest) and len(tensor.shape) == len(place)
  start, end = min(start, tensor.shape[0]), min(stop, tensor.shape[0])
  tensor.rows(start, end).read_into(out[: end - start])
  out[end - start :] = 0


def _of_layer(entry: Entry, i: int) -> tuple[str, ...]:
  return entry.of_layer(i) if entry.layered else entry.names


def _bounds(index: tuple[slice, ...], shape: tuple[int, ...]) -> Bounds:
  parts = zip(index, shape, strict=True)
  return tuple(part.indices(n)[:2] for part, n in parts)


def _slices(place: Bounds) -> tuple[slice, ...]:
  return tuple(slice(a, b) for a, b in place)


def _cause(
  entry: Entry,
  stored: tuple[int, ...],
  wanted: tuple[int, ...],
  config: EncoderConfig,
) -> str:
  """The likely reason of a wrong shape, as a sentence or nothing."""
  if len(stored) != len(wanted):
    return ""
  if stored[1:] != wanted[1:]:
    if entry.path.startswith("embed/"):
      return ". The hidden sizes differ: the weights are of another model."
    if stored == wanted[::-1]:
      return ". It is transposed: not as torch stores a linear map."
    return ""
  rows, expected = stored[0], wanted[0]
  if entry.path == "embed/position":
    return _position_cause(rows, expected, config)
  if entry.path == "embed/type":
    return (
      f". Token type rows: {rows} are stored; set type_vocab_size (XLM:"
      f" n_langs) to {rows}. XLM-R has 1, BERT 2, fairseq's XLM-R none."
    )
  if entry.path == "embed/token" or entry.form == "vocab":
    padded = -(-expected // 128) * 128
    if rows > expected:
      why = "padded for the hardware" if rows == padded else "enlarged"
      return (
        f". The vocabulary was {why}: set vocab_size to {rows} (more rows than"
        " the tokenizer has ids are normal), or cut the rows off."
      )
    return (
      ". The table has fewer rows than the vocabulary has ids: the weights are"
      " of another vocabulary, or of a trimmed one."
    )
  return ""


def _position_cause(rows: int, expected: int, config: EncoderConfig) -> str:
  offset = config.position_offset
  if config.architecture == "xlm-roberta" and rows + offset == expected:
    return (
      f". {rows} positions without RoBERTa's first {offset} rows: either"
      " model_type is wrong (BERT's and XLM's tables begin at position 0), or"
      f" the {offset} rows were cut off."
    )
  if rows - 2 == expected:
    return (
      f". {rows} rows are {expected} positions and RoBERTa's first two: set"
      f" max_position_embeddings to {rows}, and see whether model_type must be"
      " xlm-roberta."
    )
  return f". Set max_position_embeddings to {rows}."
