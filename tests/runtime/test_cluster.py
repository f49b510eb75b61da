"""A process's place, from environments and answers as clusters give them."""

import doctest
import http.server
import threading

import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import cluster
from infoxlm_jax.runtime.cluster import Place, find, first_host, parse

SLURM = {
  "SLURM_JOB_ID": "4711",
  "SLURM_STEP_NODELIST": "gpu[007-008]",
  "SLURM_STEP_NUM_NODES": "2",
  "SLURM_STEP_NUM_TASKS": "16",
  "SLURM_PROCID": "11",
  "SLURM_LOCALID": "3",
}


@pytest.mark.parametrize(
  ("setting", "place"),
  [
    ("10.0.0.1:8476,2,0", Place("10.0.0.1", 8476, 2, 0)),
    ("head.cluster:1,12,11", Place("head.cluster", 1, 12, 11)),
    ("[fd00::7]:8476,3,2", Place("fd00::7", 8476, 3, 2)),
  ],
)
def test_said_by_hand(setting, place):
  assert parse(setting) == place


@pytest.mark.parametrize("setting", ["yes", "h:1,2", "h:1,two,0", ":1,2,0"])
def test_another_form_is_refused(setting):
  with pytest.raises(InputError, match="HOST:PORT,COUNT,NUMBER"):
    parse(setting)


@pytest.mark.parametrize("setting", ["h:1,2,2", "h:1,0,0", "h:70000,2,1"])
def test_numbers_that_cannot_be(setting):
  with pytest.raises(InputError, match="have the numbers 0 to"):
    parse(setting)


@pytest.mark.parametrize(
  ("nodes", "first"),
  [
    ("node001", "node001"),
    ("node001,host2", "node001"),
    ("node[001-015],host2", "node001"),
    ("node[007,009-015],host2", "node007"),
    ("rack[3-4]-ib", "rack3-ib"),
    ("a-b-1,a-b-2", "a-b-1"),
  ],
)
def test_first_of_slurms_list_of_nodes(nodes, first):
  assert first_host(nodes) == first


def test_a_process_for_each_gpu_of_slurm():
  assert find(SLURM) == Place("gpu007", 61440 + 4711 - 4096, 16, 11, (3,))


@pytest.mark.parametrize(
  "more",
  [
    {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"},
    {"CUDA_VISIBLE_DEVICES": "3"},  # Slurm bound the task to its GPU
  ],
)
def test_a_process_of_slurm_that_takes_all_it_sees(more):
  assert find(SLURM | more).local_devices is None


def test_another_port():
  assert find(SLURM | {"JAX_COORDINATOR_PORT": "1234"}).port == 1234


def test_slurm_without_srun():
  batch = {"SLURM_JOB_ID": "4711", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
  with pytest.raises(InputError, match="start the command with srun"):
    find(batch)


GKE = {"TPU_WORKER_ID": "2", "TPU_WORKER_HOSTNAMES": "t-0.j,t-1.j,t-2.j,t-3.j"}


def test_a_tpu_slice_of_gke():
  assert find(GKE) == Place("t-0.j", 8482, 4, 2)


def test_the_second_of_two_tpu_slices():
  two = {
    "MEGASCALE_COORDINATOR_ADDRESS": "s-0-0.j:8080",
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
  }
  assert find(GKE | two) == Place("s-0-0.j", 8482, 8, 6)


def test_one_tpu_host_is_one_process():
  one = {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"}
  assert find(one).count == 1


@pytest.fixture
def metadata():
  """A metadata server; its answers by attribute."""
  answers: dict[str, str] = {}

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      known = answers.get(self.path.rpartition("/attributes/")[2])
      flavour = self.headers["Metadata-Flavor"] == "Google"
      self.send_response(200 if known is not None and flavour else 404)
      self.end_headers()
      self.wfile.write((known or "").encode())

    def log_message(self, *unused):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield answers, {"GCE_METADATA_IP": f"127.0.0.1:{server.server_port}"}
  server.shutdown()
  server.server_close()


@pytest.mark.parametrize(
  "endpoints", ["10.0.0.5,10.0.0.6", "a:1:10.0.0.5,b:2:10.0.0.6"]
)
def test_a_tpu_slice_of_compute_engine(metadata, endpoints):
  answers, environment = metadata
  answers["agent-worker-number"] = "1"
  answers["worker-network-endpoints"] = endpoints
  answers["tpu-env"] = "ACCELERATOR_TYPE: 'v5litepod-16'\nZONE: 'z'\n"
  assert find(environment) == Place("10.0.0.5", 8482, 2, 1)


def test_two_tpu_slices_of_compute_engine(metadata):
  answers, environment = metadata
  answers["agent-worker-number"] = "0"
  answers["worker-network-endpoints"] = "10.0.1.5,10.0.1.6"
  answers["tpu-env"] = (
    "MEGASCALE_COORDINATOR_ADDRESS: '10.0.0.5'\n"
    "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
  )
  assert find(environment) == Place("10.0.0.5", 8482, 4, 2)


@pytest.mark.parametrize("server", [None, "127.0.0.1:9"])
def test_no_cluster_says_what_was_looked_for(metadata, server):
  environment = {"GCE_METADATA_IP": server} if server else metadata[1]
  with pytest.raises(InputError, match="TPU_WORKER_HOSTNAMES.*HOST:PORT"):
    find(environment)


def test_the_example():
  assert doctest.testmod(cluster) == (0, 1)
