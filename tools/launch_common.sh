# shellcheck shell=bash
# Functions of the launch scripts: they read options, and print a command in
# place of running it. The scripts source this file on the machine that
# launches. Commands for the nodes do not use it, for it may not be there.
#
# A script that sources it has a function `usage`, and gives every option but
# --dry_run its default in a variable of the same name.

# For its messages.
launcher=$(basename "$0" .sh)
# shellcheck disable=SC2034  # the scripts read it
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry_run=false
# Arguments of main.
main_arguments=()

note() { echo "$launcher: $*" >&2; }

fail() {
  note "$1. --help says more."
  exit 2
}

# read_options VALUES FLAGS ARGUMENT...: puts what is given into the variables
# of the options' names. VALUES and FLAGS are names with spaces between them.
read_options() {
  # Patterns: a|b|c. With _, for a local `name` would hide the option's.
  local _values=${1// /|} _flags=${2// /|} _option
  shift 2
  while [ $# -gt 0 ]; do
    _option=${1%%=*}
    _option=${_option#--}
    if [[ "$1" == --help || "$1" == -h ]]; then
      usage
      exit 0
    elif [[ "$1" == -- ]]; then
      main_arguments=("${@:2}")
      return
    elif [[ "$1" == --@($_flags) ]]; then
      printf -v "$_option" true
    elif [[ "$1" == --@($_values)=* ]]; then
      printf -v "$_option" %s "${1#*=}"
    elif [[ "$1" == --@($_values) ]]; then
      [ $# -gt 1 ] || fail "$1 needs a value"
      printf -v "$_option" %s "$2"
      shift
    else
      fail "unknown option $1 (what main is to get stands after --)"
    fi
    shift
  done
}

# require OPTION...: all must have been given.
require() {
  local _option
  for _option in "$@"; do
    [ -n "${!_option}" ] || fail "--$_option is missing"
  done
}

# require_numbers OPTION...: whole ones, not below 0.
require_numbers() {
  local _option
  for _option in "$@"; do
    [[ "${!_option}" =~ ^[0-9]+$ ]] ||
      fail "--$_option ${!_option} is no number"
  done
}

# require_one OPTION: a number that must not be 0.
require_one() { [ "${!1}" -gt 0 ] || fail "--$1 0: at least one"; }

require_main_arguments() {
  [ ${#main_arguments[@]} -gt 0 ] ||
    fail "nothing to run: -- --gin_file=FILE ... is missing"
}

# show COMMAND...: prints it as a shell would read it.
show() {
  local word line=""
  for word in "$@"; do
    [[ "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  echo "${line# }"
}

# run COMMAND...: runs it; only prints it in a dry run.
run() { if $dry_run; then show "$@"; else "$@"; fi; }
