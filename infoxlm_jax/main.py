r"""Runs the job of a gin file.

  python -m infoxlm_jax.main --gin_file=gin/quickstart.gin
  python -m infoxlm_jax.main --gin_file=gin/quickstart.gin --gin.STEPS=100
  python -m infoxlm_jax.main --gin_file=gin/quickstart.gin --dry_run
  python -m infoxlm_jax.main --gin_file=gin/quickstart.gin --dry_run \
    --print_config
  python -m infoxlm_jax.main --gin_file=gin/runs/infoxlm_base.gin \
    --compile_for=v5e:4x4

A gin file is code: it calls functions of this project, and imports others
where --gin_allow_imports says so. Run only files that you trust.
"""

import argparse
import hashlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from infoxlm_jax import gin_utils
from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime import host_memory, output, platforms, signals

# Settings that a run needs and that a report of its costs does not.
_OPTIONAL_FOR_COSTS = ("DATA", "INIT_FROM", "MODEL_DIR")

_EXIT_CODES = """
exit codes:
  0 done
  1 failed (a bug, or the loss stopped being finite), or the memory of a device
    does not suffice; --compile_for: too large for the machine
  2 bad input or configuration   3 storage failed during the run
  4 the run hung, or another process of the run was lost
  75 SIGTERM or SIGHUP: all is saved; the same command continues
  130 Ctrl-C: the same
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Parses flags and gin, runs JOB, and returns the exit code."""
  parser = argparse.ArgumentParser(
    prog="python -m infoxlm_jax.main",
    description=__doc__,
    epilog=_EXIT_CODES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    "--gin_file",
    action="append",
    default=[],
    metavar="FILE",
    help="gin file to run; may be repeated, later files override earlier ones",
  )
  parser.add_argument(
    "--gin.NAME=VALUE",
    dest="unused",
    metavar="",
    help="sets a macro (--gin.MODEL_DIR=runs/a) or a parameter"
    " (--gin.RunOptions.log_every=1); text needs no quotes",
  )
  parser.add_argument(
    "--gin_search_paths",
    default="",
    metavar="FOLDERS",
    help="more folders to search for gin files, separated by commas; the"
    " current folder and this project's are always searched",
  )
  parser.add_argument(
    "--gin_allow_imports",
    default="",
    metavar="MODULES",
    help="modules or packages besides this project's that gin files may"
    " import, separated by commas; importing a module runs it",
  )
  parser.add_argument(
    "--dry_run",
    action="store_true",
    help="print parameters, bytes per device and FLOPs; write nothing and use"
    " no device",
  )
  parser.add_argument(
    "--print_config",
    action="store_true",
    help="with --dry_run or --compile_for: print the whole configuration, too",
  )
  parser.add_argument(
    "--compile_for",
    metavar="MACHINE",
    help="compile the training step for a machine that need not be here"
    " (v5e:4x4, 2*v5e:4x4, cuda:h100:8) and print its memory, its collectives"
    " and a lower bound on its time; write nothing and use no device",
  )
  parser.add_argument(
    "--json",
    metavar="FILE",
    help="also write the report of --dry_run or --compile_for as JSON",
  )
  parser.add_argument(
    "--distributed",
    default="",
    metavar="HOW",
    help="for a run on several hosts; give each the same command: auto on a"
    " TPU pod or under Slurm, else HOST:PORT,COUNT,NUMBER (docs/pods.md)",
  )
  flags, rest = parser.parse_known_args(argv)
  logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
  # orbax logs a traceback of what it then raises, and we say in one line.
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  try:
    with signals.stop_at_once():
      code = _run(flags, rest)
  except (InputError, StorageError) as error:
    print(f"error: {gin_utils.plain(error)}", file=sys.stderr)
    code = 2 if isinstance(error, InputError) else 3
  except signals.Terminated:  # before the first update: nothing to save
    code = signals.EXIT_TERMINATED
  except KeyboardInterrupt:  # the same
    code = signals.EXIT_INTERRUPTED
  except Exception:
    if not flags.distributed:
      raise
    traceback.print_exc()
    code = 1
  if flags.distributed:
    from infoxlm_jax.runtime import distributed

    return distributed.leave(code)
  return code


def _run(flags: argparse.Namespace, rest: Sequence[str]) -> int:
  search = [folder for folder in flags.gin_search_paths.split(",") if folder]
  costs_only = flags.dry_run or flags.compile_for is not None
  if (flags.json or flags.print_config) and not costs_only:
    flag = "--json" if flags.json else "--print_config"
    raise InputError(f"{flag} goes with --dry_run or --compile_for")
  config = gin_utils.load(
    flags.gin_file,
    rest,
    search,
    _OPTIONAL_FOR_COSTS if costs_only else (),
    [name for name in flags.gin_allow_imports.split(",") if name],
  )
  if costs_only:
    try:
      return _tell_costs(flags, config)
    finally:
      if flags.print_config:
        print(f"\n{config.text}")
  # Slow imports come after the configuration has been checked, so that a
  # misspelt setting is reported at once.
  from infoxlm_jax.runtime import device_memory, distributed
  from infoxlm_jax.training.bad_updates import Diverged

  digest = hashlib.sha256(config.text.encode()).hexdigest()
  platforms.leave_out_absent()
  distributed.start(flags.distributed, {"configuration": digest[:16]})
  _keep_compiled_programs()
  folder = Path(config.macro("MODEL_DIR"))
  accepted = False

  def on_start() -> None:
    nonlocal accepted
    accepted = True
    config.write(folder)

  try:
    config.job(on_start=on_start)
    if accepted:  # again: gin now knows every parameter that was used
      config.write(folder)
    return 0
  except signals.Stopped as stopped:
    return stopped.code
  except Diverged as diverged:
    print(f"error: {gin_utils.plain(diverged)}", file=sys.stderr)
    return 1
  except Exception as error:
    if (message := device_memory.out_of_memory(error)) is None:
      raise
    print(f"error: {message}", file=sys.stderr)
    return 1


def _tell_costs(
  flags: argparse.Namespace, config: gin_utils.Configuration
) -> int:
  """Answers --dry_run and --compile_for; returns the exit code."""
  import jax

  # An accelerator of this machine stays free for other programs.
  jax.config.update("jax_platforms", "cpu")
  arguments = config.arguments()
  if "dry_run" in arguments:  # the job implements it itself, as prepare does
    if flags.compile_for is not None or flags.json:
      raise InputError(
        "the JOB of this gin file is not a training job: --compile_for and"
        " --json are for training jobs"
      )
    config.job(dry_run=True)
    return 0
  from infoxlm_jax.analysis.compile_ahead import DoesNotFit
  from infoxlm_jax.analysis.plan import plan

  try:
    plan(
      arguments,
      target=config.macro("TARGET", None),
      compile_for=flags.compile_for,
      json_file=flags.json,
    )
    return 0
  except DoesNotFit as problem:
    print(f"error: {gin_utils.plain(problem)}", file=sys.stderr)
    return 1


def _keep_compiled_programs() -> None:
  """Turns on jax's persistent compilation cache.

  INFOXLM_COMPILATION_CACHE names another folder; empty turns the cache off.
  """
  import jax

  default = Path.home() / ".cache" / "infoxlm_jax" / "compiled"
  folder = os.environ.get("INFOXLM_COMPILATION_CACHE", str(default))
  if folder and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", folder)


if __name__ == "__main__":
  output.keep_going()
  host_memory.use_huge_pages()
  sys.exit(main())
