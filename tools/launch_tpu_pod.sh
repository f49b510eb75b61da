#!/usr/bin/env bash
# Trains on a TPU pod of Compute Engine, through preemptions, to the end.
# `--help` says how; docs/pods.md says what to expect.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch_common.sh" || exit 2

usage() {
  cat <<'END'
bash tools/launch_tpu_pod.sh OPTIONS -- ARGUMENTS OF infoxlm_jax.main

Makes a queued resource, installs this repository's last commit on every
worker, runs the same command on all of them, starts it again after a
preemption, and deletes the resource when the run is done. It stays in the
foreground: run it where it can stay for days (tmux, a small machine). Ended
and started again, it takes over the resource that is there.

needed:
  --name NAME           of the queued resource, and of its nodes
  --zone ZONE           such as us-west4-a
  --accelerator TYPE    such as v5litepod-16
  --runtime VERSION     such as v2-alpha-tpuv5-lite
others:
  --project PROJECT     instead of gcloud's own setting
  --slices N            slices that train together (1)
  --spot                cheaper, may be preempted at any time
  --autocheckpoint      SIGTERM before maintenance (uses gcloud alpha)
  --internal_ips        workers without public addresses
  --network NAME, --subnetwork NAME
  --setup COMMAND       on every worker before each start, such as mounting
                        what MODEL_DIR lies on
  --python VERSION      for the workers (3.12)
  --max_restarts N      (100)
  --pause SECONDS       between two checks of the resource (30)
  --keep                do not delete the resource at the end
  --dry_run             print what would be done, and touch nothing

exit code: 0, or the run's, which was not started again then. 2 bad input.

  bash tools/launch_tpu_pod.sh --name base --zone us-west4-a \
    --accelerator v5litepod-16 --runtime v2-alpha-tpuv5-lite --spot \
    --setup 'bash mount.sh' \
    -- --gin_file=gin/runs/infoxlm_base.gin --gin.MODEL_DIR=/mnt/runs/base
END
}

name="" zone="" accelerator="" runtime="" project="" slices=1 setup=""
python=3.12 max_restarts=100 pause=30 network="" subnetwork=""
spot=false autocheckpoint=false internal_ips=false keep=false
read_options "name zone accelerator runtime project slices setup python \
max_restarts pause network subnetwork" \
  "spot autocheckpoint internal_ips keep dry_run" "$@"
require name zone accelerator runtime
require_numbers slices max_restarts pause
require_one slices
require_main_arguments

cd "$repository"
gcloud=(gcloud compute tpus queued-resources)
place=(--zone="$zone")
[ -z "$project" ] || place+=(--project="$project")

# The resource's state, ABSENT where there is none.
state() {
  local found
  if found=$("${gcloud[@]}" describe "$name" "${place[@]}" \
    --format='value(state.state)' 2>&1); then
    echo "${found:-UNKNOWN}"
  elif [[ "$found" == *NOT_FOUND* || "$found" == *"not found"* ]]; then
    echo ABSENT
  else
    echo "$found" >&2
    echo UNKNOWN
  fi
}

create() {
  local command=("${gcloud[@]}") options=()
  if $autocheckpoint; then
    command=(gcloud alpha compute tpus queued-resources)
    options+=(--autocheckpoint-enabled)
  fi
  if [ "$slices" -eq 1 ]; then
    options+=(--node-id="$name")
  else
    options+=(--node-count="$slices" --node-prefix="$name")
  fi
  if $spot; then options+=(--spot); fi
  if $internal_ips; then options+=(--internal-ips); fi
  [ -z "$network" ] || options+=(--network="$network")
  [ -z "$subnetwork" ] || options+=(--subnetwork="$subnetwork")
  run "${command[@]}" create "$name" "${place[@]}" \
    --accelerator-type="$accelerator" --runtime-version="$runtime" \
    "${options[@]}"
}

delete() { run "${gcloud[@]}" delete "$name" "${place[@]}" --force --quiet; }

# Returns when the resource is ACTIVE; made anew where it was preempted.
obtain() {
  local found before=""
  while true; do
    found=$(state)
    [ "$found" = "$before" ] || note "$name is $found"
    before=$found
    case "$found" in
      ACTIVE) return ;;
      ABSENT)
        installed=false
        create || {
          note "$name could not be made"
          exit 2
        }
        ;;
      FAILED | SUSPENDED) delete || true ;;
    esac
    sleep "$pause"
  done
}

# on_all COMMAND: on every worker of every slice at once, for they wait for
# each other; the first code that is not 0.
on_all() {
  run "${gcloud[@]}" ssh "$name" "${place[@]}" --node=all --worker=all \
    --batch-size=all --command="$1"
}

# An earlier run that lost its connection still holds the TPU: it is asked to
# save and leave, and killed after two minutes. (run.pid may be a stranger's
# number by now.)
# shellcheck disable=SC2016  # the worker's shell reads them
{
  halt='if grep -qs infoxlm_jax.main /proc/$(cat run.pid)/cmdline; then'
  halt+=' old=$(cat run.pid); kill -TERM $old;'
  halt+=' timeout 120 tail --pid=$old -f /dev/null || kill -KILL $old; fi'
}

install() {
  local archive=infoxlm_jax.tar.gz
  run git archive --format=tar.gz --output="$work/$archive" HEAD &&
    run "${gcloud[@]}" scp "$work/$archive" "$name:" "${place[@]}" \
      --node=all --worker=all --batch-size=all &&
    # The images' own Python is older than 3.11: uv brings one.
    on_all "set -e; mkdir -p infoxlm_jax; cd infoxlm_jax; $halt;\
 tar -xzf ../$archive; python3 -m pip install --user -q uv;\
 python3 -m uv venv -q --clear --python $python .venv;\
 python3 -m uv pip install -q --python .venv/bin/python -e '.[tpu]'"
}

train() {
  on_all "cd infoxlm_jax || exit; $halt; ${setup:+$setup || exit; }\
echo \$\$ >run.pid;\
 exec .venv/bin/python -m infoxlm_jax.main --distributed=auto $arguments"
}

# Quoted once more, for the shell of the workers; ~ is theirs.
arguments=""
for argument in "${main_arguments[@]}"; do
  printf -v quoted %q "$argument"
  arguments+=" ${quoted/=\\~\//=\$HOME/}"
done
arguments=${arguments# }

if $dry_run; then
  work=/tmp
  echo "# unless it is there; then waits until it is ACTIVE"
  create
  echo "# on a new resource"
  install
  echo "# again after 4, 75, 134, 137, 143, 255 and preemptions, at most \
$max_restarts times"
  train
  if ! $keep; then
    echo "# at the end"
    delete
  fi
  exit 0
fi

for needed in gcloud git; do
  command -v "$needed" >/dev/null || fail "$needed is not installed"
done
[ -z "$(git status --porcelain)" ] ||
  note "what is not committed is not installed"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'note "left; $name goes on and costs. The same command takes over."; \
  exit 130' INT TERM

# Whether it is installed there is only known of a resource made here.
installed=false restarts=0 early=0
while true; do
  obtain
  code=0 begin=$SECONDS
  if ! $installed; then
    note "installing"
    install || code=$?
    [ "$code" -ne 0 ] || installed=true
  fi
  if $installed; then
    note "training"
    code=0
    train || code=$?
  fi
  if [ "$code" -eq 0 ]; then break; fi
  note "ended with $code after $((SECONDS - begin)) s"
  sleep "$pause"
  if [ "$(state)" = ACTIVE ]; then
    case "$code" in
      4 | 75 | 134 | 137 | 143 | 255) ;;
      *)
        note "not started again. $name is kept and costs; to delete it:"
        dry_run=true delete >&2
        exit "$code"
        ;;
    esac
    if [ $((SECONDS - begin)) -lt $((300 + pause)) ]; then
      early=$((early + 1))
    else
      early=0
    fi
  fi
  restarts=$((restarts + 1))
  if [ "$restarts" -gt "$max_restarts" ] || [ "$early" -ge 3 ]; then
    note "ended $restarts times, $early times within five minutes: given up." \
      "$name is kept and costs; to delete it:"
    dry_run=true delete >&2
    exit "$code"
  fi
done
note "done"
$keep || delete
