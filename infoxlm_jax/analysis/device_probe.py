"""Looks at jax's devices from a process of its own, with a time limit.

To start an accelerator can hang or abort, and the caller is to tell about it.
"""

import json
import subprocess
import sys
from typing import Any

_SECONDS = 180
# Prints the devices after a product on each, as one line of JSON.
_DEVICES = """
import json, sys
if sys.argv[1:] == ["tensorflow"]:
  from infoxlm_jax.data.corpora import seqio_tasks
  seqio_tasks.import_seqio()
  import tensorflow as tf
  tf.constant(1.0) + 1
import jax, jax.numpy as jnp
listed = []
for device in jax.local_devices():
  ones = jax.device_put(jnp.ones((64, 64)), device)
  assert float((ones @ ones).sum()) == 64**3, f"{device} computes wrongly"
  stats = device.memory_stats() or {}
  listed.append([device.platform, device.device_kind, stats.get("bytes_limit")])
print(json.dumps(listed))
"""


def devices(*arguments: str) -> list[Any] | str:
  """jax's devices, as a process of its own sees them.

  Args:
    *arguments: "tensorflow" to import TensorFlow first, as the readers of
      seqio Tasks and TFDS do.

  Returns:
    [platform, kind, bytes of memory or None] of each, or in one line why there
    are none.
  """
  try:
    done = subprocess.run(
      [sys.executable, "-c", _DEVICES, *arguments],
      capture_output=True,
      text=True,
      timeout=_SECONDS,
    )
  except subprocess.TimeoutExpired:
    return f"no answer in {_SECONDS} s; does another process hold the device?"
  lines = done.stdout.strip().splitlines()
  if done.returncode == 0 and lines:
    listed: list[Any] = json.loads(lines[-1])
    return listed
  said = done.stderr.strip().splitlines()
  return said[-1][:300] if said else f"exit code {done.returncode}"
