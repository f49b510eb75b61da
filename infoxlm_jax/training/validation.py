"""Checks of a configuration, made before anything is written."""

import logging
from collections.abc import Mapping
from typing import Any

from infoxlm_jax.data import alternating_stream, stream_options, token_arrays
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError, check_choice, did_you_mean
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.base import Objective
from infoxlm_jax.runtime import read_files
from infoxlm_jax.training.options import (
  CheckpointOptions,
  EvaluationOptions,
  Parallelism,
  RunOptions,
)
from infoxlm_jax.training.schedules import Schedule

_LOSS_NORMS = ("joint_sum", "per_task_mean")


def used_streams(
  objectives: Mapping[str, Objective], streams: Mapping[str, Any]
) -> dict[str, Any]:
  """The streams that some objective reads."""
  if not objectives:
    raise InputError("objectives is empty: name at least one, such as mlm")
  for name, objective in objectives.items():
    if objective.stream not in streams:
      raise InputError(
        f"objective {name!r} reads the stream {objective.stream!r}, which is"
        f" not among the streams {sorted(streams)}"
        f"{did_you_mean(objective.stream, streams)}"
      )
  wanted = {objective.stream for objective in objectives.values()}
  return {name: s for name, s in streams.items() if name in wanted}


def check_options(
  run: RunOptions,
  parallelism: Parallelism,
  evaluation: EvaluationOptions,
  checkpoints: CheckpointOptions,
) -> None:
  """Raises InputError, naming the option, where one must be a count."""
  check_counts(run, steps="STEPS", log_every=None)
  check_counts(parallelism, groups="GROUPS", microbatches="MICROBATCHES")
  check_counts(evaluation, every="EVAL_EVERY", batches=None)
  check_counts(checkpoints, save_every="SAVE_EVERY", keep_latest="KEEP_LATEST")
  if not isinstance(evaluation.examples, int) or evaluation.examples < 0:
    raise InputError(
      f"EvaluationOptions.examples = {evaluation.examples!r} is not a number of"
      " items; set it with --gin.EVAL_EXAMPLES=NUMBER, 0 for no perplexity"
    )
  checkpoints.retention()  # raises where the rules make no sense
  check_counts(run, spike_updates="SPIKE_UPDATES")
  if run.replay_every is not None:
    check_counts(run, replay_every="REPLAY_EVERY")


def check_rate(learning_rate: Schedule, steps: int) -> None:
  """Checks the learning rates of a run; warns where its warm-up has no end.

  Args:
    learning_rate: rate of update n + 1 as a function of n.
    steps: updates of the run.

  Raises:
    InputError: a rate is negative or no number.
  """
  for update in sorted({1, 1 + steps // 2, steps}):
    rate = float(learning_rate(update - 1))
    if not rate >= 0:
      raise InputError(
        f"the learning rate of update {update} is {rate}: it must be 0 or more;"
        " look at PEAK_RATE and at the schedule (RATE)"
      )
  if steps > 1 and learning_rate(steps - 1) > learning_rate(steps - 2):
    logging.warning(
      "the learning rate still rises at the last update, %d, and ends at %.3g:"
      " the warm-up is not shorter than the run (WARMUP_STEPS, STEPS)",
      steps,
      float(learning_rate(steps - 1)),
    )


def check_counts(options: Any, **macros: str | None) -> None:
  """Fields of an options object that must be whole numbers, at least 1.

  Args:
    options: the object.
    **macros: the fields' names, each with the macro that gin/pretrain.gin
      sets it by, if there is one.
  """
  for field, macro in macros.items():
    value, name = getattr(options, field), f"{type(options).__name__}.{field}"
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise InputError(
        f"{name} = {value!r} is not a whole number above 0; set it with"
        f" --gin.{macro or name}=NUMBER"
      )


def check_training(
  model: EncoderConfig,
  objectives: Mapping[str, Objective],
  streams: Mapping[str, Any],
  groups: int,
  parts: int,
) -> None:
  """Raises InputError, naming the parameter, where a value is impossible.

  Args:
    model, objectives, streams: of the run.
    groups: pieces of a batch.
    parts: devices times microbatches, which share the groups.
  """
  if groups % parts:
    raise InputError(
      f"groups = {groups} is not a multiple of {parts} (devices x"
      f" microbatches); set GROUPS to a multiple of {parts}, and every"
      " stream's batch and rows to a multiple of that"
    )
  if model.hidden_size % model.num_heads:
    raise InputError(
      f"hidden_size = {model.hidden_size} is not a multiple of num_heads ="
      f" {model.num_heads}"
    )
  for name, stream in streams.items():
    if stream.row_length > model.max_positions:
      raise InputError(
        f"stream {name!r}: row_length = {stream.row_length} is longer than the"
        f" model's max_positions = {model.max_positions}"
      )
    stream_options.check_options(stream, groups)
    for part, (one, _) in alternating_stream.parts(name, stream, 0).items():
      types = token_arrays.type_rows(one)
      if types > model.type_vocab_size:
        raise InputError(
          f"stream {part!r} tells {types} types apart, the model has"
          f" type_vocab_size = {model.type_vocab_size}; set"
          " EncoderConfig.type_vocab_size to the former"
        )
  for name, objective in objectives.items():
    objective.check(name, model)


def check_loss_norm(loss_norm: str) -> None:
  """The step would refuse another name only when it is compiled."""
  check_choice("loss_norm", loss_norm, _LOSS_NORMS)


def check_steps(steps: int, done: int) -> None:
  """A run cannot be shortened below what it has done."""
  if steps < done:
    raise InputError(
      f"steps = {steps}, but the run's checkpoint has done {done} updates"
      f" already; set STEPS to {done} or more"
    )


def check_tokenizer(model: EncoderConfig, tokenizer: Tokenizer) -> None:
  """The model must have the tokenizer's ids; it may have more rows."""
  ids, count = model.ids, tokenizer.vocab_size
  if count > model.vocab_size or (
    model.num_ids is None and model.vocab_size != count
  ):
    raise InputError(
      f"the model has vocab_size = {model.vocab_size}, the tokenizer"
      f" {tokenizer.path} has {count} ids; set VOCAB_SIZE to that, or prepare"
      " the data with the model's tokenizer"
    )
  for name in ("bos", "pad", "eos", "unk", "mask"):
    mine, other = getattr(ids, name), getattr(tokenizer, f"{name}_id")
    if mine != other:
      raise InputError(
        f"the model has {name}_id = {mine}, the tokenizer {tokenizer.path} has"
        f" {other}: they do not belong together. Use the model's own"
        f" tokenizer, or set EncoderConfig.{name}_id"
      )


def check_restored(
  files: Mapping[str, bytes],
  tokenizer: Tokenizer,
  streams: Mapping[str, Any],
) -> None:
  """A checkpoint must be of this data's tokenizer and of these streams."""
  needs = {"tokenizer_sha256": str}
  stored = _described(files, "model.json", needs)["tokenizer_sha256"]
  if stored != tokenizer.sha256:
    raise InputError(
      f"the checkpoint was trained with tokenizer {stored[:12]}, the data is"
      f" prepared with {tokenizer.sha256[:12]}; use the data of the run"
    )
  samples = _described(files, "position.json", {"samples": dict})["samples"]
  if set(samples) != set(streams):
    raise InputError(
      f"the checkpoint has positions of the streams {sorted(samples)}, this"
      f" configuration reads {sorted(streams)}"
    )


def _described(
  files: Mapping[str, bytes], name: str, needs: Mapping[str, type]
) -> dict[str, Any]:
  """The object in a JSON file of a checkpoint, with the fields it needs."""
  where = f"the checkpoint's {name}"
  content = read_files.parse_json(files.get(name, b""), where)
  return read_files.check_object(content, where, needs)
