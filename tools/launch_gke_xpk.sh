#!/usr/bin/env bash
# Trains on a TPU slice of a GKE cluster that xpk made, through preemptions.
# `--help` says how; docs/pods.md says what to expect.
set -euo pipefail

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

fail() {
  echo "launch_gke_xpk: $1. --help says more." >&2
  exit 2
}

cluster="" workload="" tpu_type="" image="" project="" zone=""
num_slices=1 max_restarts=100 grace=120 dry_run=false
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) usage && exit 0 ;;
    --) shift && break ;;
    --dry_run) dry_run=true ;;
    --cluster=* | --workload=* | --tpu_type=* | --image=* | --project=* | \
      --zone=* | --num_slices=* | --max_restarts=* | --grace=*)
      option=${1%%=*}
      printf -v "${option#--}" %s "${1#*=}"
      ;;
    --cluster | --workload | --tpu_type | --image | --project | --zone | \
      --num_slices | --max_restarts | --grace)
      [ $# -gt 1 ] || fail "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      shift
      ;;
    *) fail "unknown option $1 (what main is to get stands after --)" ;;
  esac
  shift
done
for needed in cluster workload tpu_type image; do
  [ -n "${!needed}" ] || fail "--$needed is missing"
done
for number in num_slices max_restarts grace; do
  [[ "${!number}" =~ ^[0-9]+$ ]] || fail "--$number ${!number} is no number"
done
[ "$num_slices" -gt 0 ] || fail "--num_slices 0: at least one"
[ $# -gt 0 ] || fail "nothing to run: -- --gin_file=FILE ... is missing"

folder=$(cd "$(dirname "$0")/.." && pwd)
command=(
  xpk workload create --cluster="$cluster" --workload="$workload"
  --tpu-type="$tpu_type" --num-slices="$num_slices"
  --base-docker-image="$image" --script-dir="$folder"
  --max-restarts="$max_restarts" "--restart-on-exit-codes=4,75"
  --termination-grace-period-seconds="$grace"
)
[ -z "$project" ] || command+=(--project="$project")
[ -z "$zone" ] || command+=(--zone="$zone")
# exec: SIGTERM goes to Python, not to a shell that waits for it.
command+=(
  "--command=exec python -m infoxlm_jax.main --distributed=auto$(
    printf ' %q' "$@"
  )"
)

if $dry_run; then
  line=""
  for word in "${command[@]}"; do
    [[ "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  echo "${line# }"
  exit 0
fi
command -v xpk >/dev/null || fail "xpk is not installed (pip install xpk)"
"${command[@]}"
