# What the launchers share: sourced, not run.
# shellcheck shell=bash

script="${0##*/}"
dry_run=false

say() { echo "$script: $1" >&2; }

fail() {
  say "$1"
  exit 2
}

# The command as it could be typed.
show() {
  printf '%q ' "$@"
  echo
}

# Run a command, or with --dry-run show it.
act() {
  if "$dry_run"; then show "$@"; else "$@"; fi
}

# A line about what is not a command, in a dry run.
note() {
  if "$dry_run"; then echo "# $1"; fi
}

need_value() { # OPTION NUMBER_OF_WORDS_LEFT NEXT
  [[ "$2" -gt 1 && "$3" != -* ]] || fail "$1 needs a value; see --help"
}

need_count() { # OPTION VALUE [LEAST]
  [[ "$2" =~ ^[0-9]{1,9}$ && "$2" -ge "${3:-1}" ]] ||
    fail "$1: expected a whole number of at least ${3:-1}, got '$2'"
}

need_program() { # NAME MEND
  command -v "$1" >/dev/null || fail "no '$1' on PATH; $2"
}

# The command of stepcoder, so that a run goes on that has begun: in `again`.
with_resume() {
  again=("$@")
  if [[ "$1" == train || "$1" == sft ]]; then again+=(--run.resume auto); fi
}

# Of one process that has the GPUs of a node: in `settings`, for env.
gpu_settings() {
  # Named, so that a driver that does not load is an error and not a slow run on the CPU;
  # cpu stays beside it for arrays that live on the host.
  local platforms="${JAX_PLATFORMS:-cuda,cpu}"
  # JAX takes this share of each GPU at once (its own default is 0.75): one process owns
  # the node, and what is left is for cuBLAS, NCCL and the driver.
  local memory="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
  # Collectives of sharded parameters run while the previous layer still computes.
  local flags="--xla_gpu_enable_latency_hiding_scheduler=true"
  settings=(
    "JAX_PLATFORMS=$platforms"
    "XLA_PYTHON_CLIENT_MEM_FRACTION=$memory"
    "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }$flags"
  )
}

signals=0 # that came to this script

# Pass SIGTERM and Ctrl-C on to the process groups in `children`.
pass_signals() {
  set -m # a group for each child, and none of them deaf to Ctrl-C
  children=()
  trap 'pass_on TERM' TERM
  trap 'pass_on INT' INT
}

pass_on() {
  signals=$((signals + 1))
  local child
  for child in "${children[@]}"; do
    kill "-$1" -- "-$child" 2>/dev/null || true
  done
}

# Run a command to its end, whatever signals come meanwhile; its code is in `code`.
run_child() {
  local heard
  "$@" </dev/null &
  children=("$!")
  while :; do
    heard="$signals" code=0
    wait "${children[0]}" || code=$?
    [[ "$signals" != "$heard" ]] || break # else a signal has ended the wait
  done
  children=()
}
