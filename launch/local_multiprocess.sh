#!/usr/bin/env bash
# Run stepcoder on this machine as several processes, as on several hosts.
set -euo pipefail
# shellcheck source=launch/common.bash
source "$(dirname "${BASH_SOURCE[0]}")/common.bash"

usage() {
  cat <<'TEXT'
Run stepcoder on this machine as N processes that work together, as on N hosts.

usage: launch/local_multiprocess.sh [option ...] N COMMAND [ARGUMENT ...]

  JAX_PLATFORMS=cpu launch/local_multiprocess.sh 2 train experiments/quickstart.py
  launch/local_multiprocess.sh --port 4000 2 train experiments/quickstart.py

  --port P    where they meet: P and P + 1 (29500)
  --dry-run   print exactly what would run, and stop
  --help      show this text

GPUs are shared in equal parts. All end together: when one has failed, those that are still
there 60 seconds later are terminated. The exit code is that of the first that failed.
PYTHON (python) is the interpreter.
TEXT
}

port=29500
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help | -h) usage; exit 0 ;;
    --dry-run) dry_run=true; shift ;;
    --port)
      need_value "$1" $# "${2:-}"
      port="$2"
      shift 2
      ;;
    -*) fail "unknown option $1; options of stepcoder follow its command (see --help)" ;;
    *) break ;;
  esac
done
[[ $# -gt 0 ]] || fail "expected the number of processes first; see --help"
count="$1"
need_count "N, the number of processes" "$count"
shift
[[ $# -gt 0 ]] || fail "expected a command such as 'train EXPERIMENT'; see --help"
need_count --port "$port"
[[ "$port" -lt 65535 ]] || fail "--port: expected a port from 1 to 65534, got '$port'"

python="${PYTHON:-python}"
# Seconds for the others to end when one has failed, and then when they are terminated.
grace=60 grace_to_save=30

# The command of process $1, in `command`.
command_of() {
  local number="$1"
  shift
  command=(
    env STEPCODER_DISTRIBUTED=1 MASTER_ADDR=127.0.0.1 "MASTER_PORT=$port"
    "WORLD_SIZE=$count" "RANK=$number" "LOCAL_WORLD_SIZE=$count" "LOCAL_RANK=$number"
    "$python" -m stepcoder_jax "$@"
  )
}

if "$dry_run"; then
  note "all at once:"
  for ((number = 0; number < count; number++)); do
    command_of "$number" "$@"
    show "${command[@]}"
  done
  exit 0
fi
need_program "$python" "activate the environment or set PYTHON"

pass_signals
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
mkfifo "$scratch/ended"
exec 3<>"$scratch/ended"
for ((number = 0; number < count; number++)); do
  command_of "$number" "$@"
  (
    trap : TERM INT # passed on to the whole group: what runs here says how it ends
    code=0
    "${command[@]}" </dev/null 3>&- || code=$?
    echo "$code" >&3
  ) &
  children+=("$!")
done

{ # read as a whole: the file may change meanwhile
  code=0 left="$count" limit=""
  while [[ "$left" -gt 0 ]]; do
    ended=""
    read -r -u 3 ${limit:+-t "$limit"} ended || true
    if [[ -n "$ended" ]]; then
      left=$((left - 1))
      if [[ "$code" == 0 && "$ended" != 0 ]]; then code="$ended" limit="$grace"; fi
    elif [[ "$limit" == "$grace" ]]; then
      say "one process ended with code $code, $left did not within $grace s: they are ended"
      pass_on TERM
      limit="$grace_to_save"
    elif [[ -n "$limit" ]]; then
      pass_on KILL
      break
    fi
  done
  exit "$code"
}
