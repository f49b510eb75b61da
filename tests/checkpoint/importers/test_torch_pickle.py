"""torch's and fairseq's files: the same weights, and nothing else gets in."""

import argparse
import collections
import json
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import oracle
import pytest
import weights_files
from weights_files import assert_same, tensors_of

from infoxlm_jax.checkpoint.importers import torch_pickle
from infoxlm_jax.checkpoint.importers.load import load_weights, model_of
from infoxlm_jax.cli import import_checkpoint
from infoxlm_jax.errors import InputError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

# Hugging Face -> fairseq 0.10 and later, in the order of replacement.
_FAIRSEQ = (
  ("roberta.embeddings.word_embeddings", "S.embed_tokens"),
  ("roberta.embeddings.position_embeddings", "S.embed_positions"),
  ("roberta.embeddings.LayerNorm", "S.layernorm_embedding"),
  ("roberta.encoder.layer.", "S.layers."),
  ("attention.self.query", "self_attn.q_proj"),
  ("attention.self.key", "self_attn.k_proj"),
  ("attention.self.value", "self_attn.v_proj"),
  ("attention.output.dense", "self_attn.out_proj"),
  ("attention.output.LayerNorm", "self_attn_layer_norm"),
  ("intermediate.dense", "fc1"),
  ("output.dense", "fc2"),
  ("output.LayerNorm", "final_layer_norm"),
  ("lm_head", "encoder.lm_head"),
  ("S.", "encoder.sentence_encoder."),
)


@pytest.fixture(scope="module")
def wanted():
  return load_weights(oracle.ORACLES / "xlmr_mlm")[1]


def in_torch(name="xlmr_mlm", dtype=None):
  found = {k: torch.from_numpy(v) for k, v in tensors_of(name).items()}
  return {k: v if dtype is None else v.to(dtype) for k, v in found.items()}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_bin(tmp_path, wanted, zipped, dtype):
  weights_files.write_config(tmp_path)
  state = collections.OrderedDict(in_torch(dtype=dtype))
  # As transformers wrote them: the tied matrix a second time.
  state["lm_head.decoder.weight"] = state[
    "roberta.embeddings.word_embeddings.weight"
  ]
  torch.save(
    state,
    tmp_path / "pytorch_model.bin",
    _use_new_zipfile_serialization=zipped,
  )
  _, params, report = load_weights(tmp_path, allow_pickle=True)
  assert list(report.ignored) == ["lm_head.decoder.weight"]
  if dtype is None:
    assert_same(params, wanted)
  else:
    token = state["roberta.embeddings.word_embeddings.weight"].float().numpy()
    np.testing.assert_array_equal(params["embed"]["token"][:101], token)


def test_sharded_bin(tmp_path, wanted):
  weights_files.write_config(tmp_path)
  state = in_torch()
  places = {}
  for part in (0, 1):
    names = sorted(state)[part::2]
    file = f"pytorch_model-{part}.bin"
    torch.save({k: state[k] for k in names}, tmp_path / file)
    places |= dict.fromkeys(names, file)
  index = tmp_path / "pytorch_model.bin.index.json"
  index.write_text(json.dumps({"weight_map": places}))
  assert_same(load_weights(tmp_path, allow_pickle=True)[1], wanted)
  with pytest.raises(InputError, match="CVE-2025-32434"):
    load_weights(tmp_path)


def fairseq_state(form):
  """xlmr_mlm as fairseq has it: without token types."""
  found = {}
  for name, value in in_torch().items():
    if "token_type" in name:
      continue
    for theirs, new in _FAIRSEQ:
      name = name.replace(theirs, new)
    found[name] = value
  table = found["encoder.sentence_encoder.embed_tokens.weight"]
  found["encoder.lm_head.weight"] = table
  if form == "0.12.2":
    found["encoder.sentence_encoder.version"] = torch.Tensor([3])
  if form == "module":
    found = {f"module.{k}": v for k, v in found.items()}
  if form == "head only":  # of two tied names
    del found["encoder.sentence_encoder.embed_tokens.weight"]
  if form in ("old", "fused", "infoxlm"):  # XLM-R's own, of fairseq 0.9
    found = {
      "decoder."
      + k.removeprefix("encoder.").replace(
        "layernorm_embedding", "emb_layer_norm"
      ): v
      for k, v in found.items()
    }
  if form == "fused":
    for i in range(2):
      at = f"decoder.sentence_encoder.layers.{i}.self_attn."
      for kind in ("weight", "bias"):
        parts = [found.pop(f"{at}{x}_proj.{kind}") for x in "qkv"]
        found[f"{at}in_proj_{kind}"] = torch.cat(parts)
  if form == "infoxlm":
    slow = {f"model_slow.{k}": v + 1 for k, v in found.items()}
    found = {f"model_fast.{k}": v for k, v in found.items()} | slow
    found |= {
      "queue": torch.randn(8, 32),
      "enqueue_cnt": torch.zeros(1, dtype=torch.long),
      "queue_ptr": torch.zeros(1, dtype=torch.long),
      "proj_matrix_fast": torch.randn(1, 32, 32),
      "proj_matrix_slow": torch.randn(1, 32, 32),
    }
  return found


@pytest.mark.parametrize(
  "form",
  ["new", "0.12.2", "module", "head only", "old", "fused", "infoxlm"],
)
def test_fairseq(tmp_path, wanted, form, capsys):
  options = {"encoder_attention_heads": 4, "activation_fn": "gelu"}
  checkpoint = {"model": fairseq_state(form), "extra_state": {"epoch": 1}}
  if form == "new":
    checkpoint |= {"args": None, "cfg": {"model": options}}
  else:
    checkpoint |= {"args": argparse.Namespace(**options)}
  file = tmp_path / "model.pt"
  torch.save(checkpoint, file, _use_new_zipfile_serialization=form == "new")
  config, params, report = load_weights(file, allow_pickle=True)
  expected, _ = oracle.model("xlmr_mlm")
  assert config.type_vocab_size == 0
  assert config.max_positions == expected.max_positions == 38
  assert config.mask_id is None and config.ids.mask == 100
  assert model_of(file, allow_pickle=True) == config
  without = {
    **wanted,
    "embed": {k: v for k, v in wanted["embed"].items() if k != "type"},
  }
  assert_same(params, without)
  if form == "infoxlm":
    assert "InfoXLM's key encoder, a moving average" in report.ignored.values()
    assert report.ignored["proj_matrix_fast"] == (
      "InfoXLM's projection or queue of pretraining"
    )
  stored = {t for e in report.loaded for t in e.tensors} | set(report.ignored)
  assert stored == set(checkpoint["model"])
  assert (
    import_checkpoint.main(
      [
        "--input",
        str(file),
        "--output",
        str(tmp_path / "own"),
        "--allow_pickle",
      ]
    )
    == 0
  )
  assert_same(load_weights(tmp_path / "own")[1], params)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      lambda s: [
        s.pop("encoder.sentence_encoder.embed_tokens.weight"),
        s.pop("encoder.lm_head.weight"),
      ],
      "not of",
    ),
    (
      lambda s: s.update(
        {"encoder.sentence_encoder.layer_norm.weight": torch.ones(32)}
      ),
      "layer norms before the blocks",
    ),
    (
      lambda s: s.update(
        {
          "decoder.sentence_encoder.embed_tokens.weight": s[
            "encoder.sentence_encoder.embed_tokens.weight"
          ]
        }
      ),
      "the file holds two models",
    ),
  ],
)
def test_fairseq_of_another_kind(tmp_path, change, message):
  state = fairseq_state("new")
  change(state)
  args = argparse.Namespace(
    encoder_attention_heads=4, encoder_normalize_before=True
  )
  torch.save({"model": state, "args": args}, tmp_path / "model.pt")
  with pytest.raises(InputError, match=message):
    load_weights(tmp_path / "model.pt", allow_pickle=True)


def test_fairseq_that_does_not_say_its_heads(tmp_path):
  state = {"model": fairseq_state("new"), "args": argparse.Namespace()}
  torch.save(state, tmp_path / "model.pt")
  with pytest.raises(InputError, match="number of attention heads"):
    load_weights(tmp_path / "model.pt", allow_pickle=True)


class Harmful:
  """Unpickled, it would make a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (open, (str(self.path), "w"))


def refused(folder, capsys) -> str:
  before = sorted(folder.iterdir())
  output = folder.parent / "out"
  code = import_checkpoint.main(
    ["--input", str(folder), "--output", str(output), "--allow_pickle"]
  )
  printed = capsys.readouterr()
  assert code == 2 and printed.out == "" and not output.exists()
  assert sorted(folder.iterdir()) == before
  message = printed.err.strip()
  assert message.startswith("error: ") and "\n" not in message
  return message


@pytest.fixture
def meters(monkeypatch):
  """fairseq's module of meters, to be had until `saved` hides it."""
  names = ("AverageMeter", "TimeMeter", "StopwatchMeter", "OtherMeter")
  module = types.ModuleType("fairseq.meters")
  for name in names:
    made = type(name, (), {"__module__": module.__name__})
    setattr(module, name, made)
  for place in ("fairseq", "fairseq.meters"):
    monkeypatch.setitem(sys.modules, place, module)
  return module


def saved(file, meters, model, **more):
  """Writes what the released Trainer.save_checkpoint does; hides `meters`."""
  own = collections.OrderedDict()
  for name, kind, fields in (
    ("train_loss", "AverageMeter", {"val": 2.5, "sum": 5.0, "count": 2}),
    ("gnorm", "AverageMeter", {"val": torch.ones(()), "avg": 1.0}),
    ("wps", "TimeMeter", {"init": 0, "start": 1.5, "n": 7}),
    ("train_wall", "StopwatchMeter", {"sum": 1.0, "start_time": None}),
  ):
    own[name] = getattr(meters, kind)()
    own[name].__dict__.update(fields)
  state = {
    "args": argparse.Namespace(encoder_attention_heads=4, save_dir="x"),
    "model": collections.OrderedDict(model),
    "optimizer_history": [
      {
        "criterion_name": "XlCoCriterion",
        "optimizer_name": "FairseqAdam",
        "lr_scheduler_state": {"best": None},
        "num_updates": 8,
      }
    ],
    "last_optimizer_state": {
      "state": {0: {"step": 8, "exp_avg": torch.ones(3)}},
      "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.98), "params": [0]}],
    },
    "extra_state": {
      "train_iterator": {"epoch": 1, "iterations_in_epoch": 8},
      "val_loss": None,
      "train_meters": own | more,
    },
  }
  torch.save(state, file, _use_new_zipfile_serialization=False)
  del sys.modules["fairseq.meters"], sys.modules["fairseq"]


def test_what_the_released_trainer_saves(tmp_path, wanted, meters):
  """With its meters: the same weights, and fairseq is not looked for."""
  model = fairseq_state("infoxlm")
  # A buffer of fairseq 0.12.
  model["model_fast.encoder.sentence_encoder.version"] = torch.tensor([3.0])
  saved(tmp_path / "checkpoint_last.pt", meters, model)
  _, params, report = load_weights(
    tmp_path / "checkpoint_last.pt", allow_pickle=True
  )
  without = {
    **wanted,
    "embed": {k: v for k, v in wanted["embed"].items() if k != "type"},
  }
  assert_same(params, without)
  assert "fairseq" not in sys.modules
  version = report.ignored["model_fast.encoder.sentence_encoder.version"]
  assert version == "fairseq's version number of the module"


def test_an_unknown_tensor_does_not_blame_a_config_json(tmp_path, meters):
  model = fairseq_state("new")
  model["encoder.sentence_encoder.adapter.weight"] = torch.ones(2)
  saved(tmp_path / "model.pt", meters, model)
  with pytest.raises(InputError) as caught:
    load_weights(tmp_path / "model.pt", allow_pickle=True)
  message = str(caught.value)
  assert "not part of this architecture: encoder.sentence_encoder.ad" in message
  assert "config.json" not in message
  assert "the file's own options (2 layers)" in message


class Calls:
  """Unpickled, it would call a function."""

  def __init__(self, function, *values):
    self.call = (function, values)

  def __reduce__(self):
    return self.call


class Posing:
  """Pickled as a meter of fairseq whose state is anything."""

  def __init__(self, kind, state, *values):
    self.parts = (kind, values, state)

  def __reduce__(self):
    return self.parts


@pytest.mark.parametrize(
  "case", ["system", "eval", "in a meter", "arguments", "setstate", "other"]
)
def test_meters_let_nothing_else_in(tmp_path, capsys, meters, case):
  place = tmp_path / "model"
  place.mkdir()
  mark = tmp_path / "mark"
  code = f"open({str(mark)!r}, 'w')"
  harm = Calls(os.system, f"touch {mark}")
  average, named = meters.AverageMeter, "system"
  if case == "system":
    poison = harm
  elif case == "eval":
    poison, named = Calls(eval, code), "eval"
  elif case == "in a meter":
    poison = average()
    poison.val = [harm]
  elif case == "arguments":
    poison = Posing(average, None, harm)
  elif case == "setstate":
    poison, named = Posing(average, {"__setstate__": eval}), "eval"
  else:
    poison, named = meters.OtherMeter(), "fairseq.meters.OtherMeter"
  saved(place / "model.pt", meters, fairseq_state("new"), poison=poison)
  message = refused(place, capsys)
  assert "refused: it names" in message and named in message
  assert not mark.exists()


def test_a_meter_keeps_nothing_that_a_file_gives_it(tmp_path, meters):
  """Its state could otherwise name what is called at the next one."""
  poison = Posing(
    meters.AverageMeter, {"__setstate__": collections.OrderedDict, "x": 1}, 1, 2
  )
  saved(tmp_path / "model.pt", meters, fairseq_state("new"), poison=poison)
  state = torch_pickle.read_torch(tmp_path / "model.pt", allow_pickle=True)
  for meter in state["extra_state"]["train_meters"].values():
    assert not hasattr(meter, "__dict__") and not hasattr(meter, "x")
    assert type(meter).__module__ == torch_pickle.__name__


@pytest.fixture
def folder(tmp_path):
  place = tmp_path / "model"
  place.mkdir()
  weights_files.write_config(place)
  return place


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_does_not_run(folder, capsys, zipped):
  mark = folder / "mark"
  state = in_torch() | {"harm": Harmful(mark)}
  torch.save(
    state,
    folder / "pytorch_model.bin",
    _use_new_zipfile_serialization=zipped,
  )
  message = refused(folder, capsys)
  assert "refused: it names" in message and "open" in message
  assert "Nothing of it was run" in message
  assert not mark.exists()
  # A plain pickle under the name, without torch's form.
  for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    plain = pickle.dumps(Harmful(mark), protocol)
    (folder / "pytorch_model.bin").write_bytes(plain)
    message = refused(folder, capsys)
    assert "pytorch_model.bin: refused: it " in message
    # torch's own message advises to read it all the same.
    assert "weights_only" not in message
    assert not mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated(folder, capsys, zipped, share):
  file = folder / "pytorch_model.bin"
  torch.save(in_torch(), file, _use_new_zipfile_serialization=zipped)
  content = file.read_bytes()
  file.write_bytes(content[: int(share * len(content))])
  assert str(file) in refused(folder, capsys)


def test_zip_bomb(folder, capsys):
  with zipfile.ZipFile(
    folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED
  ) as archive:
    archive.writestr("archive/data.pkl", bytes(40 << 20))
  assert "zip bomb" in refused(folder, capsys)


@pytest.mark.parametrize(
  ("state", "message"),
  [
    ([1, 2], "no dict of tensors"),
    ({"a": 1}, "no dict of tensors"),
    ({"a": torch.zeros(1).expand(1 << 40)}, "stores fewer values"),
    ({"a": torch.eye(4).to_sparse()}, "sparse or quantized"),
  ],
)
def test_no_weights(folder, capsys, state, message):
  torch.save(state, folder / "pytorch_model.bin")
  assert message in refused(folder, capsys)


def test_not_finite(folder, capsys):
  state = in_torch()
  state["lm_head.bias"][:2] = float("nan")
  torch.save(state, folder / "pytorch_model.bin")
  assert "lm_head.bias holds NaN or infinity in 2 of 101" in refused(
    folder, capsys
  )


def test_an_old_torch_is_refused(folder, capsys, monkeypatch):
  monkeypatch.setattr(torch, "__version__", "2.5.1")
  torch.save(in_torch(), folder / "pytorch_model.bin")
  message = refused(folder, capsys)
  assert "2.10 or newer" in message and "CVE-2025-32434" in message
