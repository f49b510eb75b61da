"""Which kind of device jax will compute on, told before it starts any.

jax tries every accelerator that a package is installed for, and asking jax
starts all of them: libtpu prints errors on a machine without a TPU, and the
CUDA plugin a traceback on one without a GPU. Both may be installed only to
compile for such machines (the extras [tpu-compile] and [cuda]). Device files
say what is here.
"""

import contextlib
import glob
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
from collections.abc import Mapping

# (device files, package of jax that computes on these devices).
_ACCELERATORS = (
  ("/dev/accel[0-9]*", "libtpu"),
  ("/dev/vfio/[0-9]*", "libtpu"),
  ("/dev/nvidia[0-9]*", "jax_cuda12_plugin"),
  ("/dev/nvidia[0-9]*", "jax_cuda13_plugin"),
  ("/dev/dxg", "jax_cuda12_plugin"),  # Windows' subsystem for Linux
  ("/dev/dxg", "jax_cuda13_plugin"),
)
# Plugins of the packages above, as jax finds them.
_KNOWN_PLUGINS = {"xla_cuda12", "xla_cuda13"}
# The user's, where jax itself sees no TPU. TPU_LIBRARY_PATH says nothing: the
# package libtpu sets it when it is imported.
_FORCED = "JAX_FORCE_TPU_INIT"


def computes_on_cpu(environment: Mapping[str, str]) -> bool:
  """Whether jax will choose the CPU, told without importing it.

  A device without its package is not used, nor is a package without a device.
  Of an accelerator that this module does not know, such as AMD's, the package
  alone counts.

  Args:
    environment: variables of the process.
  """
  if platforms := environment.get("JAX_PLATFORMS"):
    return platforms.split(",")[0] == "cpu"
  return not (
    _FORCED in environment
    or any(glob.glob(files) and _installed(p) for files, p in _ACCELERATORS)
    or _unknown_plugins()
  )


def leave_out_absent() -> None:
  """Keeps jax from starting accelerators that are not on this machine.

  For commands, before the first use of a device. Nothing happens where
  JAX_PLATFORMS is set, or where no package of an accelerator is installed.
  """
  if os.environ.get("JAX_PLATFORMS"):
    return
  if any(_installed(package) for _, package in _ACCELERATORS) and (
    computes_on_cpu(os.environ)
  ):
    import jax

    jax.config.update("jax_platforms", "cpu")


def _installed(package: str) -> bool:
  return importlib.util.find_spec(package) is not None


def _unknown_plugins() -> set[str]:
  """Plugins of jax for other accelerators than the known ones."""
  points = importlib.metadata.entry_points(group="jax_plugins")
  names = {point.name for point in points}
  with contextlib.suppress(ImportError):
    folders = importlib.import_module("jax_plugins").__path__
    names |= {module.name for module in pkgutil.iter_modules(folders)}
  return names - _KNOWN_PLUGINS
