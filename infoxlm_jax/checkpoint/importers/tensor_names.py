"""Which tensor of a file each name of the table means.

Files differ in prefixes (a bare encoder has none, a wrapped one has more) and,
where they are old, in the names of a layer norm's two vectors.
"""

from collections.abc import Mapping

from infoxlm_jax.checkpoint.importers import parameter_map
from infoxlm_jax.checkpoint.importers.lazy_tensor import Tensor, Tensors
from infoxlm_jax.checkpoint.importers.parameter_map import Entry
from infoxlm_jax.checkpoint.importers.wrappers import unwrapped
from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig

_OLD = {".gamma": ".weight", ".beta": ".bias"}  # TensorFlow's layer norm
# Numbers of rows that old files store, and that nobody reads.
_COUNTERS = ("position_ids", "token_type_ids")
_SAME = "the same as {}"


def sort(
  tensors: Tensors,
  config: EncoderConfig,
  where: str,
  stated_in: str = "config.json",
) -> tuple[dict[str, Tensor], dict[str, list[Entry]], dict[str, str]]:
  """Finds the encoder and the heads among the tensors of a file.

  Args:
    tensors: by the file's names.
    config: of the encoder.
    where: the file, for messages.
    stated_in: what says what the architecture is, for messages.

  Returns:
    The tensors by the table's names; the entries of the encoder ("") and of
    each head that is there, by name; and {tensor: why it is ignored}.

  Raises:
    InputError: a tensor of the encoder is missing, one is left over, or two
      that differ mean the same.
  """
  canonical, ignored = _canonical(tensors, config, where)
  entries = {"": parameter_map.encoder_entries(config)}
  _check_complete(entries[""], canonical, config, where, stated_in)
  for head, parts in parameter_map.head_entries(config).items():
    missing = [e.names[0] for e in parts if e.names[0] not in canonical]
    if not missing:
      entries[head] = parts
    elif there := {e.names[0] for e in parts} - set(missing):
      ignored |= {
        canonical[name].name: f"the head {head} is not whole: {missing[0]} is"
        " missing"
        for name in sorted(there)
      }
  used = {
    name
    for parts in entries.values()
    for entry in parts
    for name in all_names(entry, config)
  }
  ignored |= (
    _left_over(
      {k: v for k, v in canonical.items() if k not in used},
      canonical,
      config,
      where,
      stated_in,
    )
    | ignored
  )
  return canonical, entries, ignored


def _canonical(
  tensors: Tensors, config: EncoderConfig, where: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
  """The tensors by the names of the table, others by their own.

  And {tensor: why it is ignored} of those that are there a second time.
  """
  prefix = parameter_map.PREFIX[config.architecture]
  known = {
    name
    for parts in (
      parameter_map.encoder_entries(config),
      *parameter_map.head_entries(config).values(),
    )
    for entry in parts
    for name in all_names(entry, config)
  } | set(parameter_map.copies(config))
  canonical: dict[str, Tensor] = {}
  doubles = {}
  for name, tensor in tensors.items():
    first = canonical.setdefault(_known_name(name, prefix, known), tensor)
    if first is tensor:
      continue
    if not tensor.same_as(first):
      raise InputError(
        f"{where}: the tensors {first.name} and {tensor.name} mean the same"
        " array and have different values: the file holds two models. Remove"
        " one of them."
      )
    doubles[tensor.name] = _SAME.format(first.name)
  for copy, original in parameter_map.copies(config).items():
    # Some writers keep the other one of two tied names.
    if original not in canonical and copy in canonical:
      canonical[original] = canonical.pop(copy)
  return canonical, doubles


def _known_name(name: str, prefix: str, known: set[str]) -> str:
  plain = name
  for old, new in _OLD.items():
    if name.endswith(old):
      plain = name.removesuffix(old) + new
  for inner in unwrapped(plain):
    for candidate in (inner, prefix + inner):
      if candidate in known:
        return candidate
  return name


def _check_complete(
  entries: list[Entry],
  canonical: Mapping[str, Tensor],
  config: EncoderConfig,
  where: str,
  stated_in: str,
) -> None:
  wanted = [name for entry in entries for name in all_names(entry, config)]
  missing = [name for name in wanted if name not in canonical]
  if not missing:
    return
  if len(missing) == len(wanted):
    some = ", ".join(sorted(canonical)[:3]) or "none"
    raise InputError(
      f"{where}: holds no tensor of the architecture {config.architecture} that"
      f" {stated_in} names; its tensors are {some}, ... Either the weights or"
      f" {stated_in} are of another model."
    )
  raise InputError(
    f"{where}: tensor {missing[0]} is missing"
    f"{f', and {len(missing) - 1} more' if len(missing) > 1 else ''}:"
    f" {stated_in} ({config.num_layers} layers) and the weights are of"
    " different models, or the file is not whole"
  )


def _left_over(
  left: Mapping[str, Tensor],
  canonical: Mapping[str, Tensor],
  config: EncoderConfig,
  where: str,
  stated_in: str,
) -> dict[str, str]:
  """{tensor: why it may be left out}; what the encoder would need is an error.

  Raises:
    InputError: a tensor in the encoder that the table does not know: the
      encoder would compute something else without it.
  """
  prefix = parameter_map.PREFIX[config.architecture]
  copies = parameter_map.copies(config)
  ignored, unknown = {}, []
  for name, tensor in left.items():
    if name.endswith(_COUNTERS):
      ignored[tensor.name] = "row numbers, which are computed"
    elif name.endswith("sentence_encoder.version"):
      ignored[tensor.name] = "fairseq's version number of the module"
    elif name in copies and copies[name] in canonical:
      original = canonical[copies[name]]
      ignored[tensor.name] = _as_copy(tensor, original, stated_in)
    elif name.startswith("model_slow."):
      ignored[tensor.name] = "InfoXLM's key encoder, a moving average"
    elif name.startswith(("proj_matrix", "queue", "enqueue_cnt")):
      ignored[tensor.name] = "InfoXLM's projection or queue of pretraining"
    elif any(
      inner.startswith(prefix) or _in_body(inner, config)
      for inner in unwrapped(name)
    ):
      unknown.append(tensor.name)
    else:
      ignored[tensor.name] = "of a head that is not known here"
  if unknown:
    raise InputError(
      f"{where}: holds tensors that are not part of this architecture:"
      f" {', '.join(sorted(unknown)[:5])}; {stated_in} ({config.num_layers}"
      " layers) and the weights are of different models"
    )
  return ignored


def _in_body(name: str, config: EncoderConfig) -> bool:
  """Whether a bare name stands where the encoder's tensors do."""
  starts = {
    part.removeprefix(parameter_map.PREFIX[config.architecture]).split(".")[0]
    + "."
    for entry in parameter_map.encoder_entries(config)
    for part in entry.names
  }
  return name.startswith(tuple(starts))


def _as_copy(tensor: Tensor, original: Tensor, stated_in: str) -> str:
  if tensor.same_as(original):
    return _SAME.format(original.name)
  return (
    f"tied to {original.name} by {stated_in}, although its values differ;"
    " tie_word_embeddings = false would load it"
  )


def all_names(entry: Entry, config: EncoderConfig) -> list[str]:
  """The table's names of all tensors of an entry, layer by layer."""
  if not entry.layered:
    return list(entry.names)
  return [n for i in range(config.num_layers) for n in entry.of_layer(i)]
