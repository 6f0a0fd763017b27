#!/usr/bin/env bash
# Run stepcoder on all GPUs of this machine.
set -euo pipefail
# shellcheck source=launch/common.bash
source "$(dirname "${BASH_SOURCE[0]}")/common.bash"

usage() {
  cat <<'TEXT'
Run stepcoder on all GPUs of this machine.

usage: launch/gpu_node.sh [option ...] COMMAND [ARGUMENT ...]

  launch/gpu_node.sh train experiments/quickstart.py --run.folder runs/gpu
  launch/gpu_node.sh --tries 5 train experiments/quickstart.py

  --tries N   after exit code 75 (lost, stalled) start it again with --run.resume auto,
              N starts in all (3); not after a signal to this script, which is passed on
  --dry-run   print exactly what would run, and stop
  --help      show this text

Variables that are already set win: PYTHON (python), JAX_PLATFORMS (cuda,cpu),
XLA_PYTHON_CLIENT_MEM_FRACTION (0.92), XLA_FLAGS (added to).
TEXT
}

tries=3
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help | -h) usage; exit 0 ;;
    --dry-run) dry_run=true; shift ;;
    --tries)
      need_value "$1" $# "${2:-}"
      tries="$2"
      shift 2
      ;;
    -*) fail "unknown option $1; options of stepcoder follow its command (see --help)" ;;
    *) break ;;
  esac
done
[[ $# -gt 0 ]] || fail "expected a command such as 'train EXPERIMENT'; see --help"
need_count --tries "$tries"

python="${PYTHON:-python}"
gpu_settings
program=(env "${settings[@]}" "$python" -m stepcoder_jax)
with_resume "$@"

if "$dry_run"; then
  show "${program[@]}" "$@"
  if [[ "$tries" -gt 1 ]]; then
    note "after exit code 75, at most $((tries - 1)) times:"
    show "${program[@]}" "${again[@]}"
  fi
  exit 0
fi
need_program "$python" "activate the environment or set PYTHON"
if [[ "${settings[0]}" == *cuda* ]] && ! command -v nvidia-smi >/dev/null; then
  fail "no NVIDIA driver here (nvidia-smi is missing); for a trial set JAX_PLATFORMS=cpu"
fi
{ # read as a whole: the file may change meanwhile
  pass_signals
  run_child "${program[@]}" "$@"
  for ((start = 2; start <= tries; start++)); do
    if [[ "$code" != 75 || "$signals" -gt 0 ]]; then break; fi
    say "exit code 75: start $start of $tries, with what was saved"
    run_child "${program[@]}" "${again[@]}"
  done
  exit "$code"
}
