#!/usr/bin/env bash
# Trains on a TPU slice of a GKE cluster that xpk made, through preemptions.
# `--help` says how; docs/pods.md says what to expect.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch_common.sh" || exit 2

usage() {
  cat <<'END'
bash tools/launch_gke_xpk.sh OPTIONS -- ARGUMENTS OF infoxlm_jax.main

Creates an xpk workload: the image with this repository on every host of the
slices, the same command on all. GKE starts it again after preemptions, and
where the run asks for it (75), lost a process or hung (4).

needed:
  --cluster NAME        made with `xpk cluster create`
  --workload NAME       of this run: small letters, digits and -
  --tpu_type TYPE       such as v5litepod-16
  --image IMAGE         with Python 3.11 or later and infoxlm_jax[tpu]; this
                        repository is added to it
others:
  --project PROJECT, --zone ZONE    instead of gcloud's own setting
  --num_slices N        slices that train together (1)
  --max_restarts N      (100)
  --grace SECONDS       from SIGTERM to the end of a host (120)
  --dry_run             print what would be done, and touch nothing

MODEL_DIR must be a folder that all hosts mount, such as
`xpk storage attach` gives.

exit code: xpk's; 2 bad input.

  bash tools/launch_gke_xpk.sh --cluster pods --workload base \
    --tpu_type v5litepod-16 --image REGION-docker.pkg.dev/PROJECT/R/infoxlm \
    -- --gin_file=gin/runs/infoxlm_base.gin --gin.MODEL_DIR=/bucket/base
END
}

cluster="" workload="" tpu_type="" image="" project="" zone=""
num_slices=1 max_restarts=100 grace=120
read_options "cluster workload tpu_type image project zone num_slices \
max_restarts grace" "dry_run" "$@"
require cluster workload tpu_type image
require_numbers num_slices max_restarts grace
require_one num_slices
require_main_arguments

command=(
  xpk workload create --cluster="$cluster" --workload="$workload"
  --tpu-type="$tpu_type" --num-slices="$num_slices"
  --base-docker-image="$image" --script-dir="$repository"
  --max-restarts="$max_restarts" "--restart-on-exit-codes=4,75"
  --termination-grace-period-seconds="$grace"
)
[ -z "$project" ] || command+=(--project="$project")
[ -z "$zone" ] || command+=(--zone="$zone")
# exec: SIGTERM goes to Python, not to a shell that waits for it.
command+=(
  "--command=exec python -m infoxlm_jax.main --distributed=auto$(
    printf ' %q' "${main_arguments[@]}"
  )"
)

$dry_run || command -v xpk >/dev/null ||
  fail "xpk is not installed (pip install xpk)"
run "${command[@]}"
