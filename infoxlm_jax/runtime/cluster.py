"""Reads from Slurm or a TPU pod which process of a run this one is.

jax can detect the same, but if a process is missing it aborts and does not say
which. This module therefore detects it, `rendezvous` waits for all processes,
and then jax gets the result.
"""

import dataclasses
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping

from infoxlm_jax.errors import InputError

_TPU_PORT = 8482  # jax's own choice for TPUs
_METADATA = "http://{}/computeMetadata/v1/instance/attributes/{}"


@dataclasses.dataclass(frozen=True)
class Place:
  """The place of one process among the processes of a run."""

  host: str  # of process 0
  port: int  # that process 0 listens on
  count: int  # processes of the run
  number: int  # of this process, from 0
  # GPUs that belong to this process; None: all that it sees.
  local_devices: tuple[int, ...] | None = None


def parse(setting: str) -> Place:
  """Parses HOST:PORT,COUNT,NUMBER.

  Raises:
    InputError: the text has another form, the number is not below the count,
      or the port is out of range.
  """
  form = re.fullmatch(r"\[?([^,\[\]]+?)\]?:(\d+),(\d+),(\d+)", setting)
  if form is None:
    raise InputError(
      f"--distributed={setting}: give auto, or HOST:PORT,COUNT,NUMBER such"
      " as 10.0.0.1:8476,2,0"
    )
  port, count, number = (int(part) for part in form.groups()[1:])
  if not (0 < port < 65536 and number < count):
    raise InputError(
      f"--distributed={setting}: {count} process(es) have the numbers 0 to"
      f" {count - 1}, and a port lies between 1 and 65535"
    )
  return Place(form[1], port, count, number)


def find(environment: Mapping[str, str] = os.environ) -> Place:
  """Reads this process's place from the cluster.

  Tries, in this order, a step of Slurm, a TPU slice of GKE, and a TPU slice of
  Compute Engine. JAX_COORDINATOR_PORT overrides the port of process 0.

  Raises:
    InputError: this is none of these clusters, or Slurm's variables are
      incomplete.
  """
  for place_of in (_slurm, _gke, _compute_engine):
    if place := place_of(environment):
      return place
  raise InputError(
    "--distributed=auto: this is no step of Slurm (no SLURM_STEP_NODELIST), no"
    " TPU slice of GKE (no TPU_WORKER_HOSTNAMES) and none of Compute Engine (no"
    " metadata server names its workers). Leave --distributed out for one"
    " process, or say who this one is: --distributed=HOST:PORT,COUNT,NUMBER"
  )


def first_host(nodes: str) -> str:
  """Returns the first host of Slurm's list of nodes.

  >>> first_host("gpu[007-010,12],cpu3")
  'gpu007'
  """
  form = re.match(r"([^,\[]*)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
  assert form is not None  # it matches the empty string
  return "".join(part or "" for part in form.groups())


def _slurm(environment: Mapping[str, str]) -> Place | None:
  if "SLURM_JOB_ID" not in environment:
    return None
  get = environment.get
  nodes, number = get("SLURM_STEP_NODELIST"), get("SLURM_PROCID")
  count = get("SLURM_STEP_NUM_TASKS") or get("SLURM_NTASKS")
  if not (nodes and number and count):
    raise InputError(
      f"--distributed=auto: job {environment['SLURM_JOB_ID']} of Slurm, but no"
      " step of it (SLURM_STEP_NODELIST, SLURM_PROCID, SLURM_NTASKS): start the"
      " command with srun"
    )
  # Jobs that share a node need different ports; jax uses the same formula.
  port = 61440 + int(environment["SLURM_JOB_ID"]) % 4096
  alone = get("SLURM_STEP_NUM_NODES") == count
  bound = "," not in get("CUDA_VISIBLE_DEVICES", ",")
  local = None if alone or bound else (int(get("SLURM_LOCALID", "0")),)
  return Place(
    first_host(nodes), _port(environment, port), int(count), int(number), local
  )


def _gke(environment: Mapping[str, str]) -> Place | None:
  hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get(
    "TPU_WORKER_HOSTNAMES"
  )
  if not hosts or "TPU_WORKER_ID" not in environment:
    return None
  return _slice(
    [host.partition(":")[0] for host in hosts.split(",")],
    int(environment["TPU_WORKER_ID"]),
    environment,
    environment,
  )


def _compute_engine(environment: Mapping[str, str]) -> Place | None:
  server = environment.get("GCE_METADATA_IP", "metadata.google.internal")
  number = _metadata(server, "agent-worker-number")
  if number is None:
    return None
  # Each endpoint is a name, or name:id:address.
  endpoints = (_metadata(server, "worker-network-endpoints") or "").split(",")
  about = re.findall(
    r"^\s*(\w+)\s*:\s*'?(.*?)'?\s*$", _metadata(server, "tpu-env") or "", re.M
  )
  return _slice(
    [endpoint.split(":")[-1] for endpoint in endpoints],
    int(number),
    dict(about) | dict(environment),
    environment,
  )


def _slice(
  hosts: list[str],
  worker: int,
  about: Mapping[str, str],
  environment: Mapping[str, str],
) -> Place:
  """The place of a worker of a TPU slice; a run may have several slices."""
  first = about.get("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]
  slices = int(about.get("MEGASCALE_NUM_SLICES") or 1)
  number = int(about.get("MEGASCALE_SLICE_ID") or 0) * len(hosts) + worker
  return Place(
    first.partition(":")[0],
    _port(environment, _TPU_PORT),
    slices * len(hosts),
    number,
  )


def _metadata(server: str, name: str) -> str | None:
  """An attribute of this Compute Engine machine; None on other machines."""
  request = urllib.request.Request(
    _METADATA.format(server, name), headers={"Metadata-Flavor": "Google"}
  )
  direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
  try:
    with direct.open(request, timeout=5) as answer:
      return str(answer.read(), "utf-8").strip()
  except (OSError, urllib.error.URLError):
    return None


def _port(environment: Mapping[str, str], usual: int) -> int:
  return int(environment.get("JAX_COORDINATOR_PORT") or usual)
