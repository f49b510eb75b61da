"""The launch scripts: what they print, and what they do to clusters that
programs of the same names stand in for.
"""  # noqa: D205

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SCRIPTS = ["launch_tpu_pod.sh", "launch_slurm.sh", "launch_gke_xpk.sh"]
POD = [
  *("--name", "base", "--zone", "us-west4-a"),
  *("--accelerator", "v5litepod-16", "--runtime", "v2-alpha-tpuv5-lite"),
]
MAIN = ["--gin_file=gin/q.gin", "--gin.MODEL_DIR=~/my bucket/a", "--gin.S=it's"]
# Every program writes down how it was called, and then does its part.
RECORD = f"""#!{sys.executable}
import json, os, pathlib, shutil, subprocess, sys, tarfile
place = pathlib.Path(os.environ["PLACE"])
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with open(place / "calls", "a") as file:
  file.write(json.dumps([name, *arguments]) + "\\n")
def following(what):
  path = place / what
  first, *rest = path.read_text().split() or ["0"]
  path.write_text(" ".join(rest))
  return first
"""
GCLOUD = """
# A queued resource of two workers, which are folders.
verb = arguments[arguments.index("queued-resources") + 1]
state = place / "state"
workers = [place / "worker0", place / "worker1"]
if verb == "describe":
  if not state.exists():
    sys.exit("ERROR: (gcloud) NOT_FOUND: no such resource")
  print(state.read_text())
elif verb == "create":
  state.write_text("ACTIVE")
  for worker in workers:
    worker.mkdir(exist_ok=True)
elif verb == "delete":
  state.unlink()
  for worker in workers:
    shutil.rmtree(worker)
elif verb == "scp":
  for worker in workers:
    shutil.copy(arguments[arguments.index("scp") + 1], worker)
elif verb == "ssh":
  command = arguments[-1].removeprefix("--command=")
  if "--distributed" in command:
    code, _, after = following("codes").partition(":")
    os.environ["CODE"] = code
    if after:
      state.write_text(after)
  running = [
    subprocess.Popen(
      ["bash", "-c", command], cwd=worker, env=os.environ | {"HOME": worker}
    )
    for worker in workers
  ]
  codes = [worker.wait() for worker in running]
  sys.exit(next((code for code in codes if code), 0))
"""
WORKER = """
if "venv" in arguments:
  pathlib.Path(".venv/bin").mkdir(parents=True, exist_ok=True)
  shutil.copy(sys.argv[0], ".venv/bin/python")
sys.exit(int(os.environ["CODE"]) if "infoxlm_jax.main" in arguments else 0)
"""
GIT = """
if "archive" in arguments:
  target = [a for a in arguments if a.startswith("--output=")][0]
  with tarfile.open(target.removeprefix("--output="), "w:gz"):
    pass
"""


@pytest.fixture
def cluster(tmp_path):
  """Run a script among programs that stand in for a cluster's."""
  programs = tmp_path / "programs"
  programs.mkdir()
  for name, does in {
    "gcloud": GCLOUD,
    "git": GIT,
    "python3": WORKER,
    "sbatch": '(place / "script").write_text(sys.stdin.read())\n',
    "srun": "sys.exit(int(following('codes')))\n",
    "scontrol": "",
    "xpk": "",
  }.items():
    (programs / name).write_text(RECORD + does)
    (programs / name).chmod(0o755)
  return Cluster(tmp_path)


class Cluster:
  def __init__(self, place):
    self.place = place
    self.environment = {
      "PATH": f"{place / 'programs'}:/usr/bin:/bin",
      "PLACE": str(place),
      "HOME": str(place),
    }

  def run(self, *command, codes="", **more):
    (self.place / "codes").write_text(codes)
    return subprocess.run(
      ["bash", *map(str, command)],
      env=self.environment | more,
      cwd=self.place,
      capture_output=True,
      text=True,
      timeout=120,
    )

  def calls(self, name):
    path = self.place / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    return [call[1:] for call in map(json.loads, lines) if call[0] == name]

  def pod(self, *options, codes=""):
    return self.run(
      *(TOOLS / "launch_tpu_pod.sh", *POD, "--pause", "0", *options),
      *("--", *MAIN),
      codes=codes,
    )

  def verbs(self):
    """What was asked of gcloud, without looking."""
    found = []
    for call in self.calls("gcloud"):
      verb = call[call.index("queued-resources") + 1]
      if verb == "ssh":
        verb = "train" if "--distributed" in call[-1] else "install"
      if verb not in ("describe", "scp"):
        found.append(verb)
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_option(script):
  done = subprocess.run(
    ["bash", TOOLS / script, "--help"], capture_output=True, text=True
  )
  assert done.returncode == 0 and not done.stderr
  assert "--dry_run" in done.stdout and "exit code" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_sourced_is_looked_for_beside_the_script(cluster, script):
  folder = cluster.place / "a b"
  folder.mkdir()
  shutil.copy(TOOLS / script, folder)
  done = cluster.run(f"a b/{script}", "--help")
  assert done.returncode == 2 and not done.stdout
  assert "a b/launch_common.sh: No such file" in done.stderr
  shutil.copy(TOOLS / "launch_common.sh", folder)
  done = cluster.run(f"a b/{script}", "--help")
  assert done.returncode == 0 and not done.stderr
  assert f"bash tools/{script} OPTIONS" in done.stdout


@pytest.mark.parametrize(
  ("script", "arguments", "what"),
  [
    ("launch_tpu_pod.sh", ["--zone", "z", "--", "x"], "--name is missing"),
    ("launch_tpu_pod.sh", POD, "nothing to run"),
    ("launch_tpu_pod.sh", [*POD, "--zone"], "--zone needs a value"),
    ("launch_tpu_pod.sh", [*POD, "--slices=a", "--", "x"], "a is no number"),
    ("launch_tpu_pod.sh", [*POD, "--slice=1"], "unknown option --slice=1"),
    ("launch_slurm.sh", ["--nodes", "2", "--", "x"], "--time is missing"),
    ("launch_slurm.sh", ["--nodes=0", "--time=1", "--", "x"], "--nodes 0"),
    ("launch_gke_xpk.sh", ["--cluster", "c"], "--workload is missing"),
  ],
)
def test_bad_arguments(cluster, script, arguments, what):
  done = cluster.run(TOOLS / script, *arguments)
  assert done.returncode == 2 and what in done.stderr and not done.stdout
  assert not (cluster.place / "calls").exists()


def test_dry_run_of_a_pod(cluster):
  done = cluster.pod("--dry_run", "--spot", "--setup", "mount it")
  assert done.returncode == 0 and not done.stderr
  lines = done.stdout.splitlines()
  command = "gcloud compute tpus queued-resources"
  everyone = "--zone=us-west4-a --node=all --worker=all --batch-size=all"
  assert lines[1] == (
    f"{command} create base --zone=us-west4-a --accelerator-type=v5litepod-16"
    " --runtime-version=v2-alpha-tpuv5-lite --node-id=base --spot"
  )
  assert lines[3:5] == [
    "git archive --format=tar.gz --output=/tmp/infoxlm_jax.tar.gz HEAD",
    f"{command} scp /tmp/infoxlm_jax.tar.gz base: {everyone}",
  ]
  assert lines[5].startswith(f"{command} ssh base {everyone} '--command=set -e")
  assert "--python 3.12 .venv" in lines[5] and ".[tpu]" in lines[5]
  assert lines[7].startswith(f"{command} ssh base {everyone} '--command=cd ")
  assert "; mount it || exit; " in lines[7]
  assert "infoxlm_jax.main --distributed=auto --gin_file" in lines[7]
  assert lines[9:] == [
    f"{command} delete base --zone=us-west4-a --force --quiet"
  ]
  assert not (cluster.place / "calls").exists()


def test_other_resources(cluster):
  done = cluster.pod(
    *("--dry_run", "--slices=2", "--autocheckpoint", "--project", "p"),
    *("--network=n", "--subnetwork=s", "--internal_ips", "--keep"),
  )
  lines = done.stdout.splitlines()
  assert lines[1] == (
    "gcloud alpha compute tpus queued-resources create base --zone=us-west4-a"
    " --project=p --accelerator-type=v5litepod-16"
    " --runtime-version=v2-alpha-tpuv5-lite --autocheckpoint-enabled"
    " --node-count=2 --node-prefix=base --internal-ips --network=n"
    " --subnetwork=s"
  )
  assert "delete" not in done.stdout


def test_a_pod_is_made_trained_on_and_deleted(cluster):
  done = cluster.pod("--setup", "echo mounted >>mounts", codes="0")
  assert done.returncode == 0, done.stderr
  assert cluster.verbs() == ["create", "install", "train", "delete"]
  # What main gets has gone through three shells; ~ is the worker's.
  expected = ["-m", "infoxlm_jax.main", "--distributed=auto", MAIN[0]]
  found = cluster.calls("python")
  assert len(found) == 2
  for n, arguments in enumerate(sorted(found, key=lambda a: a[4])):
    home = cluster.place / f"worker{n}"
    assert arguments[:4] == expected
    assert arguments[4:] == [f"--gin.MODEL_DIR={home}/my bucket/a", MAIN[2]]


def test_saved_on_request_goes_on_where_it_is(cluster):
  done = cluster.pod(codes="75 75 0")
  assert done.returncode == 0, done.stderr
  assert cluster.verbs() == [
    *("create", "install", "train", "train", "train", "delete")
  ]


@pytest.mark.parametrize("code", ["255", "1"])
def test_after_a_preemption_there_is_a_new_pod(cluster, code):
  done = cluster.pod("--spot", codes=f"{code}:SUSPENDED 0")
  assert done.returncode == 0, done.stderr
  one = ["create", "install", "train", "delete"]
  assert cluster.verbs() == one + one


@pytest.mark.parametrize("code", ["1", "2", "3"])
def test_what_a_new_start_would_not_mend_is_not_started_again(cluster, code):
  done = cluster.pod(codes=f"{code} 0")
  assert done.returncode == int(code)
  assert cluster.verbs() == ["create", "install", "train"]
  assert "base is kept and costs" in done.stderr
  assert "queued-resources delete base" in done.stderr


def test_three_early_ends_are_enough(cluster):
  done = cluster.pod(codes="134 134 134 0")
  assert done.returncode == 134 and "given up" in done.stderr
  assert cluster.verbs() == ["create", "install", "train", "train", "train"]


def test_a_pod_that_is_there_is_taken_over(cluster):
  """The run of before is asked to save; what it holds becomes free."""
  cluster.pod("--keep", codes="0")
  (cluster.place / "calls").unlink()
  program = "trap 'echo saved; exit 75' TERM; while :; do sleep 0.1; done"
  old = subprocess.Popen(
    ["bash", "-c", program, "infoxlm_jax.main"], stdout=subprocess.PIPE
  )
  time.sleep(0.5)
  number = cluster.place / "worker1/infoxlm_jax/run.pid"
  number.write_text(f"{old.pid}\n")
  # Of a stranger, who must live.
  stranger = subprocess.Popen(["sleep", "60"])
  number.parents[2].joinpath("worker0/infoxlm_jax/run.pid").write_text(
    f"{stranger.pid}\n"
  )
  try:
    # Unless it is waited for, a dead child stays in the list of processes.
    threading.Thread(target=old.wait).start()
    done = cluster.pod("--keep", codes="0")
    assert done.returncode == 0, done.stderr
    assert cluster.verbs() == ["install", "train"]
    assert old.wait(10) == 75
    assert stranger.poll() is None
  finally:
    stranger.kill()
    old.kill()


SLURM = ["--nodes", "2", "--time", "24:00:00"]
OPTIONS = [
  *("--job-name=infoxlm", "--nodes=2", "--ntasks-per-node=8"),
  *("--time=24:00:00", "--signal=SIGTERM@120", "--requeue"),
  *("--open-mode=append", "--output=%x-%j.out", "--gpus-per-node=8"),
]


def test_dry_run_of_slurm(cluster):
  done = cluster.run(
    *(TOOLS / "launch_slurm.sh", "--dry_run", *SLURM, "--partition", "gpu"),
    *("--setup", "module load cuda", "--python", "my venv/bin/python"),
    *("--folder", "/a b", "--", *MAIN),
  )
  assert done.returncode == 0 and not done.stderr
  lines = done.stdout.splitlines()
  assert lines[0] == f"sbatch {' '.join(OPTIONS)} --partition=gpu <<\\END"
  assert lines[1] == "#!/usr/bin/env bash"
  assert lines[3:5] == ["cd /a\\ b || exit", "module load cuda || exit"]
  assert lines[6].startswith(
    "srun --kill-on-bad-exit=1 my\\ venv/bin/python -m infoxlm_jax.main"
    " --distributed=auto --gin_file=gin/q.gin "
  )
  assert lines[-1] == "END"
  assert not (cluster.place / "calls").exists()


@pytest.mark.parametrize(
  ("options", "changed"),
  [
    (["--per_node"], {"--ntasks-per-node=8": "--ntasks-per-node=1"}),
    (
      ["--gpus_per_node=0"],
      {"--ntasks-per-node=8": "--ntasks-per-node=1", "--gpus-per-node=8": ""},
    ),
    (
      ["--job_name", "two words"],
      {"--job-name=infoxlm": "--job-name=two words"},
    ),
  ],
)
def test_slurm_gets_the_options_and_the_script(cluster, options, changed):
  done = cluster.run(TOOLS / "launch_slurm.sh", *SLURM, *options, "--", *MAIN)
  assert done.returncode == 0, done.stderr
  expected = [changed.get(option, option) for option in OPTIONS]
  assert cluster.calls("sbatch") == [[o for o in expected if o]]
  script = (cluster.place / "script").read_text()
  assert script.startswith("#!/usr/bin/env bash\n")


@pytest.mark.parametrize(
  ("code", "restarts", "requeued"),
  [
    ("0", "0", False),
    ("2", "0", False),
    ("1", "0", False),
    ("75", "0", True),
    ("75", "3", True),
    ("75", "4", False),
    ("4", "0", True),
    ("134", "0", True),
    ("137", "1", True),
    ("130", "0", False),
  ],
)
def test_slurms_script_queues_itself_again(cluster, code, restarts, requeued):
  cluster.run(
    *(TOOLS / "launch_slurm.sh", *SLURM, "--folder", cluster.place),
    *("--max_restarts=4", "--", *MAIN),
  )
  done = cluster.run(
    cluster.place / "script",
    codes=code,
    SLURM_JOB_ID="4711",
    SLURM_RESTART_COUNT=restarts,
  )
  assert done.returncode == int(code)
  assert cluster.calls("scontrol") == [["requeue", "4711"]] * requeued
  [call] = cluster.calls("srun")
  assert call[:5] == [
    *("--kill-on-bad-exit=1", "python", "-m", "infoxlm_jax.main"),
    "--distributed=auto",
  ]
  assert call[5:] == MAIN


def test_xpk(cluster):
  options = ["--cluster=c", "--workload=w", "--tpu_type=v5litepod-16"]
  options += ["--image", "europe-docker.pkg.dev/p/r/i", "--num_slices=2"]
  script = TOOLS / "launch_gke_xpk.sh"
  expected = [
    *("workload", "create", "--cluster=c", "--workload=w"),
    *("--tpu-type=v5litepod-16", "--num-slices=2"),
    "--base-docker-image=europe-docker.pkg.dev/p/r/i",
    *(f"--script-dir={TOOLS.parent}", "--max-restarts=100"),
    "--restart-on-exit-codes=4,75",
    "--termination-grace-period-seconds=120",
  ]
  done = cluster.run(script, *options, "--dry_run", "--", "--gin_file=q.gin")
  main = "exec python -m infoxlm_jax.main --distributed=auto --gin_file=q.gin"
  line = f"xpk {' '.join(expected)} '--command={main}'\n"
  assert done.stdout == line and done.returncode == 0
  assert not (cluster.place / "calls").exists()
  done = cluster.run(script, *options, "--", *MAIN)
  assert done.returncode == 0, done.stderr
  [call] = cluster.calls("xpk")
  assert call[:-1] == expected
  # The command is read by a shell of the container.
  shell = call[-1].removeprefix("--command=").replace("exec", "printf '%s\\n'")
  shown = cluster.run("-c", shell).stdout.splitlines()
  assert shown[-3:] == MAIN


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck")
@pytest.mark.parametrize("script", [*SCRIPTS, "launch_common.sh"])
def test_shellcheck_finds_nothing(script):
  subprocess.run(["shellcheck", TOOLS / script], check=True)
