#!/usr/bin/env bash
# What tpu_pod.sh has done on each host of a slice, in the checkout that it has pushed.
set -euo pipefail
checkout="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=launch/common.bash
source "$checkout/launch/common.bash"

usage() {
  cat <<'TEXT'
What tpu_pod.sh has done on each host of a slice, in the checkout that it has pushed.

usage: launch/on_host.sh [--dry-run] install
       launch/on_host.sh [--dry-run] start COMMAND [ARGUMENT ...]
       launch/on_host.sh status | stop [SECONDS] | logs [--follow]

  launch/on_host.sh start train experiments/quickstart.py

  install   an environment in .venv, with Python 3.11 to 3.13 and the extra `tpu`
  start     the command, detached; its output is added to CHECKOUT.job/log
  status    `running PID`, `ended CODE`, `stopped CODE` (by stop), `lost` (killed with its
            code, rebooted) or `none`
  stop      SIGTERM, then wait until it has saved and ended, so many seconds (600) at most
  logs      the end of the log
TEXT
}

if [[ "${1:-}" == --dry-run ]]; then
  dry_run=true
  shift
fi
verb="${1:-}"
if [[ $# -gt 0 ]]; then shift; fi
job="$checkout.job" # beside it, so that the checkout stays clean
python="$checkout/.venv/bin/python"
boot=/proc/sys/kernel/random/boot_id

status() {
  local pid="" how=ended
  if [[ -s "$job/code" ]]; then
    if [[ -e "$job/stopped" ]]; then how=stopped; fi
    echo "$how $(<"$job/code")"
    return
  fi
  # a number of before a reboot may be another program's
  if [[ -s "$job/pid" && "$(<"$job/boot")" == "$(<"$boot")" ]]; then pid="$(<"$job/pid")"; fi
  # the shell outlives the trainer until it has written the code
  # shellcheck disable=SC2046 # no word where there is no such file
  if [[ -n "$pid" ]] && kill -0 "$pid" $(cat "$job/shell" 2>/dev/null) 2>/dev/null; then
    echo "running $pid"
  elif [[ -e "$job/log" ]]; then
    echo lost
  else
    echo none
  fi
}

install() {
  local version found=""
  for version in 3.13 3.12 3.11; do
    if command -v "python$version" >/dev/null; then
      found="python$version"
      break
    fi
  done
  if [[ -z "$found" ]]; then # images of TPUs have an older one
    act sudo apt-get update -q
    act sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -q python3.11 python3.11-venv
    found=python3.11
  fi
  if [[ ! -x "$python" ]]; then act "$found" -m venv "$checkout/.venv"; fi
  act "$python" -m pip install -q -e "${checkout}[tpu]"
}

start() {
  [[ $# -gt 0 ]] || fail "expected a command such as 'train EXPERIMENT' after start"
  if "$dry_run"; then
    show env STEPCODER_DISTRIBUTED=1 "$python" -m stepcoder_jax "$@"
    return
  fi
  [[ -x "$python" ]] || fail "$checkout has no .venv; install first"
  [[ "$(status)" != running* ]] || fail "it runs already here; stop it first"
  mkdir -p "$job"
  rm -f "$job/pid" "$job/code" "$job/stopped"
  cat "$boot" >"$job/boot"
  cd "$checkout"
  # A session of its own, which no end of ssh reaches. The inner shell keeps the code.
  # shellcheck disable=SC2016 # variables of the inner shell
  JOB="$job" STEPCODER_DISTRIBUTED=1 setsid bash -c '
    echo $$ >"$JOB/shell"
    "$@" &
    echo $! >"$JOB/pid"
    code=0
    wait $! || code=$?
    echo $code >"$JOB/code"
  ' start "$python" -m stepcoder_jax "$@" >>"$job/log" 2>&1 </dev/null &
  local turn
  for ((turn = 0; turn < 50; turn++)); do
    if [[ -s "$job/pid" ]]; then break; fi
    sleep 0.1
  done
  status
}

stop() {
  need_count "stop: seconds" "$1"
  local now pid end=$((SECONDS + $1))
  now="$(status)"
  if [[ "$now" == running* ]]; then
    pid="${now#running }"
    touch "$job/stopped"
    kill -TERM "$pid" 2>/dev/null || true # it may have ended just now
    while [[ "$(status)" == running* ]]; do
      if [[ "$SECONDS" -ge "$end" ]]; then
        say "process $pid has not ended after $1 s"
        exit 1
      fi
      sleep 1
    done
  fi
  status
}

case "$verb" in
  --help | -h) usage ;;
  install) install ;;
  start) start "$@" ;;
  status) status ;;
  stop) stop "${1:-600}" ;;
  logs)
    if [[ "${1:-}" == --follow ]]; then exec tail -n 200 -F "$job/log"; fi
    tail -n 200 "$job/log"
    ;;
  *) fail "expected install, start, status, stop or logs, got '$verb'; see --help" ;;
esac
