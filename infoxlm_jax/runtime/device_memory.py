"""An accelerator whose memory does not suffice, in words."""

import jax

_CODE = "RESOURCE_EXHAUSTED"


def out_of_memory(error: BaseException) -> str | None:
  """The message of an error that means that a device's memory is full.

  Returns:
    What to change, in one paragraph; None: it is another error.
  """
  if not isinstance(error, jax.errors.JaxRuntimeError):
    return None
  first_line = str(error).strip().partition("\n")[0]
  if _CODE not in first_line:
    return None
  return (
    f"the memory of a device does not suffice: {first_line[:300]} Change one"
    " of three settings and start again in the same MODEL_DIR: MICROBATCHES"
    " (twice as many, half as much at a time), REMAT ('full' computes"
    " activations again instead of keeping them), LOGITS_CHUNK (fewer logits"
    " at a time). --compile_for tells how much each of them saves."
  )
