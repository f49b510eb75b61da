"""A Hugging Face config.json and our EncoderConfig, both ways."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.runtime import read_files

# model_type of config.json -> architecture
MODEL_TYPES = {
  "xlm-roberta": "xlm-roberta",
  "roberta": "xlm-roberta",
  "camembert": "xlm-roberta",
  "bert": "bert",
  "xlm": "xlm",
}
# Special ids where neither config.json nor a tokenizer says them.
_MBERT_IDS = {"bos_id": 101, "eos_id": 102, "unk_id": 100, "mask_id": 103}
# What a config.json must say, and transformers' defaults of what files of its
# first releases do not say (its configuration_*.py).
_NEEDED = {
  "xlm": ("max_position_embeddings", "n_layers", "emb_dim", "n_heads"),
  "bert": (
    "vocab_size",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
  ),
}
_NEEDED["xlm-roberta"] = _NEEDED["bert"]
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
  "xlm": {"layer_norm_eps": 1e-12, "n_langs": 1, "gelu_activation": True},
  "bert": {"layer_norm_eps": 1e-12, "type_vocab_size": 2, "pad_token_id": 0},
  "xlm-roberta": {
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
    "pad_token_id": 1,
  },
}
_ACTIVATIONS = ("gelu", "relu")
# Far beyond any model of these kinds.
_MOST = {
  "vocab_size": 1 << 31,
  "num_layers": 1000,
  "hidden_size": 1 << 20,
  "num_heads": 1 << 10,
  "ffn_size": 1 << 20,
  "max_positions": 1 << 20,
  "position_offset": 1 << 20,
  "type_vocab_size": 1 << 20,
}


def path_of(weights: Path) -> Path:
  """Where the config.json of a file of weights stands."""
  return weights.parent / "config.json"


def of_weights(
  file: Path, stated: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> tuple[EncoderConfig, str]:
  """The config of the encoder in a file of weights, and the file it is from.

  Args:
    file: the weights.
    stated: what the file itself says in the place of a config.json, if it
      does, see open_weights.open_tensors.
    options: as from_hugging_face takes them.

  Raises:
    InputError: no config.json beside the file, or one that describes no model.
  """
  path = file
  if stated is None:
    path = path_of(file)
    if not path.is_file():
      raise InputError(
        f"{file}: there is no {path.name} beside it, which says what the"
        " architecture is; put the model's own there"
      )
    stated = read_files.read_object(path)
  try:
    config = from_hugging_face(stated, str(path), **options)
  except (TypeError, ValueError, ZeroDivisionError) as error:
    raise InputError(f"{path}: describes no model: {error}") from None
  check_numbers(config, str(path))
  return config, str(path)


def check_numbers(config: EncoderConfig, where: str) -> None:
  """Checks the numbers of a config.json that anybody may have written.

  Raises:
    InputError: one that no encoder has.
  """
  for name, most in _MOST.items():
    value = getattr(config, name)
    least = 0 if name in ("position_offset", "type_vocab_size") else 1
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
      raise InputError(
        f"{where}: says that {name} is {value!r}, which is no number from"
        f" {least} to {most:,}"
      )
  eps = config.layer_norm_eps
  if not isinstance(eps, float) or not 0 <= eps < 1:
    raise InputError(f"{where}: says that layer_norm_eps is {eps!r}")


def from_hugging_face(
  raw: Mapping[str, Any], where: str, **options: Any
) -> EncoderConfig:
  """The encoder that a config.json describes.

  Args:
    raw: its contents.
    where: its path, for messages.
    **options: fields of EncoderConfig that are the run's choice: dtype,
      remat, unroll, dropout, attention_dropout. Dropout is 0 if not given, as
      in continued pretraining, whatever the file says.

  Raises:
    InputError: another architecture, a setting this encoder does not have,
      or a missing one.
  """
  architecture = MODEL_TYPES.get(str(raw.get("model_type")))
  if architecture is None:
    raise InputError(
      f"{where}: model_type is {raw.get('model_type')!r}; known are"
      f" {', '.join(MODEL_TYPES)}"
    )
  raw = _with_defaults(raw, where, architecture)
  if architecture == "xlm":
    fields = _xlm_fields(raw, where)
  else:
    fields = _bert_fields(raw, where, architecture)
  fields |= {
    "architecture": architecture,
    "tied": raw.get("tie_word_embeddings", True),
  }
  config = EncoderConfig(**fields, **options)
  if config.hidden_size % config.num_heads:
    raise InputError(
      f"{where}: hidden size {config.hidden_size} is not a multiple of"
      f" {config.num_heads} heads"
    )
  return config


def _with_defaults(
  raw: Mapping[str, Any], where: str, architecture: str
) -> Mapping[str, Any]:
  needed = _NEEDED[architecture]
  if architecture == "xlm":  # old files call it by the authors' name
    needed += ("n_words" if "n_words" in raw else "vocab_size",)
  if missing := [name for name in needed if name not in raw]:
    verb = "is" if len(missing) == 1 else "are"
    raise InputError(
      f"{where}: {', '.join(missing)} {verb} missing; without these numbers the"
      " file describes no model"
    )
  return {**_DEFAULTS[architecture], **raw}


def _bert_fields(
  raw: Mapping[str, Any], where: str, architecture: str
) -> dict[str, Any]:
  _check(raw, where, "hidden_act", _ACTIVATIONS, "gelu")
  _check(raw, where, "position_embedding_type", ("absolute",), "absolute")
  _check(raw, where, "is_decoder", (False,), False)
  pad = raw["pad_token_id"]
  offset = pad + 1 if architecture == "xlm-roberta" else 0
  fields = {
    "vocab_size": raw["vocab_size"],
    "num_layers": raw["num_hidden_layers"],
    "hidden_size": raw["hidden_size"],
    "num_heads": raw["num_attention_heads"],
    "ffn_size": raw["intermediate_size"],
    "max_positions": raw["max_position_embeddings"] - offset,
    "position_offset": offset,
    "type_vocab_size": raw["type_vocab_size"],
    "pad_id": pad,
    "layer_norm_eps": raw["layer_norm_eps"],
    "activation": raw.get("hidden_act", "gelu"),
  }
  ids = _MBERT_IDS if architecture == "bert" else {"bos_id": 0, "eos_id": 2}
  if all(i < raw["vocab_size"] for i in ids.values()):
    fields |= ids
  return fields


def _xlm_fields(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
  for name in ("asm", "causal"):
    _check(raw, where, name, (False,), False)
  _check(raw, where, "is_encoder", (True,), True)
  languages = raw["n_langs"] if raw.get("use_lang_emb", True) else 1
  return {
    "vocab_size": raw["vocab_size" if "vocab_size" in raw else "n_words"],
    "num_layers": raw["n_layers"],
    "hidden_size": raw["emb_dim"],
    "num_heads": raw["n_heads"],
    "ffn_size": 4 * raw["emb_dim"],
    "max_positions": raw["max_position_embeddings"],
    "position_offset": 0,
    "type_vocab_size": languages if languages > 1 else 0,
    "bos_id": raw.get("bos_index", raw.get("bos_token_id", 0)),
    "eos_id": raw.get("eos_index", raw.get("eos_token_id", 1)),
    "pad_id": raw.get("pad_index", raw.get("pad_token_id", 2)),
    "unk_id": raw.get("unk_index", 3),
    # transformers writes a mask_token_id of 0 beside it, which means nothing.
    "mask_id": raw.get("mask_index", 5),
    "layer_norm_eps": raw["layer_norm_eps"],
    "activation": "gelu" if raw["gelu_activation"] else "relu",
  }


def _check(
  raw: Mapping[str, Any],
  where: str,
  name: str,
  known: tuple[Any, ...],
  default: Any,
) -> None:
  value = raw.get(name, default)
  if value not in known:
    raise InputError(
      f"{where}: {name} is {value!r}; this encoder has"
      f" {' or '.join(map(repr, known))}"
    )


def to_hugging_face(
  config: EncoderConfig, model_class: str, *, dropout: float = 0.1
) -> dict[str, Any]:
  """The config.json of an encoder.

  Args:
    config: the encoder's.
    model_class: what transformers loads it as, such as
      "XLMRobertaForMaskedLM".
    dropout: what fine-tuning will use: the encoder's own rate is that of
      its pretraining, often 0.
  """
  ids = config.ids
  common = {
    "architectures": [model_class],
    "dtype": "float32",
    "layer_norm_eps": config.layer_norm_eps,
    "max_position_embeddings": config.max_positions + config.position_offset,
    "model_type": config.architecture,
    "pad_token_id": ids.pad,
    "bos_token_id": ids.bos,
    "eos_token_id": ids.eos,
    "tie_word_embeddings": config.tied,
    "vocab_size": config.vocab_size,
  }
  if config.architecture == "xlm":
    return common | {
      "asm": False,
      "attention_dropout": dropout,
      "causal": False,
      "dropout": dropout,
      "emb_dim": config.hidden_size,
      "gelu_activation": config.activation == "gelu",
      "is_encoder": True,
      "bos_index": ids.bos,
      "eos_index": ids.eos,
      "pad_index": ids.pad,
      "unk_index": ids.unk,
      "mask_index": ids.mask,
      "mask_token_id": ids.mask,
      "n_heads": config.num_heads,
      "n_langs": max(1, config.type_vocab_size),
      "n_layers": config.num_layers,
      "sinusoidal_embeddings": False,
      "use_lang_emb": config.type_vocab_size > 0,
    }
  return common | {
    "attention_probs_dropout_prob": dropout,
    "hidden_act": config.activation,
    "hidden_dropout_prob": dropout,
    "hidden_size": config.hidden_size,
    "initializer_range": 0.02,
    "intermediate_size": config.ffn_size,
    "num_attention_heads": config.num_heads,
    "num_hidden_layers": config.num_layers,
    # transformers looks row 0 up whatever this says.
    "type_vocab_size": max(1, config.type_vocab_size),
  }
