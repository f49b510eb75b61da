#!/usr/bin/env bash
# Trains on GPU nodes of a Slurm cluster, through time limits and preemptions.
# `--help` says how; docs/pods.md says what to expect.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch_common.sh" || exit 2

usage() {
  cat <<'END'
bash tools/launch_slurm.sh OPTIONS -- ARGUMENTS OF infoxlm_jax.main

Submits one job: a process for each GPU. Two minutes before its time is over,
and when it is preempted, the run saves and leaves with 75; then the job puts
itself into the queue again and goes on where it was, until the run is done.

needed:
  --nodes N
  --time LIMIT          of one job, such as 24:00:00
others:
  --gpus_per_node N     (8)
  --per_node            one process for each node instead of each GPU
  --cpus_per_task N     for the data; 0 leaves it to the cluster (0)
  --job_name NAME       (infoxlm)
  --partition NAME, --account NAME, --qos NAME, --constraint FEATURES
  --output FILE         of all that is printed (%x-%j.out)
  --folder FOLDER       to run in (this repository)
  --setup COMMAND       before each start, such as 'module load cuda'
  --python COMMAND      (python)
  --max_restarts N      (100)
  --dry_run             print the command and the script, and touch nothing

exit code: sbatch's; 2 bad input.

  bash tools/launch_slurm.sh --nodes 2 --time 24:00:00 --partition gpu \
    --python .venv/bin/python \
    -- --gin_file=gin/runs/infoxlm_base.gin --gin.MODEL_DIR=/shared/runs/base
END
}

# shellcheck disable=SC2034  # some are read by their names
nodes="" time="" gpus_per_node=8 per_node=false cpus_per_task=0 \
  job_name=infoxlm partition="" account="" qos="" constraint=""
output=%x-%j.out folder=$repository setup="" python=python max_restarts=100
read_options "nodes time gpus_per_node cpus_per_task job_name partition \
account qos constraint output folder setup python max_restarts" \
  "per_node dry_run" "$@"
require nodes time
require_numbers nodes gpus_per_node cpus_per_task max_restarts
require_one nodes
require_main_arguments

tasks=$gpus_per_node
if $per_node || [ "$tasks" -eq 0 ]; then tasks=1; fi
# Without B: the signal goes to the processes, not to the script.
options=(
  --job-name="$job_name" --nodes="$nodes" --ntasks-per-node="$tasks"
  --time="$time" --signal=SIGTERM@120 --requeue --open-mode=append
  --output="$output"
)
[ "$gpus_per_node" -eq 0 ] || options+=(--gpus-per-node="$gpus_per_node")
[ "$cpus_per_task" -eq 0 ] || options+=(--cpus-per-task="$cpus_per_task")
for option in partition account qos constraint; do
  [ -z "${!option}" ] || options+=("--$option=${!option}")
done

quoted=$(printf ' %q' "${main_arguments[@]}")
printf -v folder %q "$folder"
printf -v python %q "$python"
# Slurm runs this script on a node, from a folder of its own: it must need
# nothing that stands beside the one that wrote it.
script="#!/usr/bin/env bash
# Written by tools/launch_slurm.sh.
cd $folder || exit
${setup:+$setup || exit
}code=0
srun --kill-on-bad-exit=1 $python -m infoxlm_jax.main --distributed=auto$quoted || code=\$?
# 75: saved on request. The others: a process died or hung, and took the rest
# along; the newest checkpoint is good.
case \"\$code\" in
  4 | 75 | 134 | 137 | 143)
    if [ \"\${SLURM_RESTART_COUNT:-0}\" -lt $max_restarts ]; then
      echo \"ended with \$code: into the queue again\"
      scontrol requeue \"\$SLURM_JOB_ID\"
    fi
    ;;
esac
exit \"\$code\""

if $dry_run; then
  line=$(show sbatch "${options[@]}")
  printf '%s <<\\END\n%s\nEND\n' "$line" "$script"
  exit 0
fi
command -v sbatch >/dev/null || fail "sbatch is not installed"
sbatch "${options[@]}" <<<"$script"
