#!/usr/bin/env bash
# Run stepcoder on all GPUs of this machine.
set -euo pipefail

usage() {
  cat <<'TEXT'
Run stepcoder on all GPUs of this machine.

usage: launch/gpu_node.sh [--dry-run] COMMAND [ARGUMENT ...]

  launch/gpu_node.sh train experiments/quickstart.py --run.folder runs/gpu
  launch/gpu_node.sh --dry-run train experiments/quickstart.py

  --dry-run   print exactly what would run, and stop
  --help      show this text

Variables that are already set win: PYTHON (python), JAX_PLATFORMS (cuda,cpu),
XLA_PYTHON_CLIENT_MEM_FRACTION (0.92), XLA_FLAGS (added to).
TEXT
}

fail() {
  echo "gpu_node.sh: $1" >&2
  exit 2
}

dry_run=false
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help | -h) usage; exit 0 ;;
    --dry-run) dry_run=true; shift ;;
    -*) fail "unknown option $1; options of stepcoder follow its command (see --help)" ;;
    *) break ;;
  esac
done
[[ $# -gt 0 ]] || fail "expected a command such as 'train EXPERIMENT'; see --help"

python="${PYTHON:-python}"
# Named, so that a driver that does not load is an error and not a slow run on the CPU;
# cpu stays beside it for arrays that live on the host.
platforms="${JAX_PLATFORMS:-cuda,cpu}"
# JAX takes this share of each GPU at once (its own default is 0.75): one process owns the
# node, and what is left is for cuBLAS, NCCL and the driver.
memory="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
# Collectives of sharded parameters run while the previous layer still computes.
flags="${XLA_FLAGS:+$XLA_FLAGS }--xla_gpu_enable_latency_hiding_scheduler=true"

settings=(
  "JAX_PLATFORMS=$platforms"
  "XLA_PYTHON_CLIENT_MEM_FRACTION=$memory"
  "XLA_FLAGS=$flags"
)
command=("$python" -m stepcoder_jax "$@")

if "$dry_run"; then
  printf '%q ' env "${settings[@]}" "${command[@]}"
  echo
  exit 0
fi
command -v "$python" >/dev/null || fail "no '$python' on PATH; activate the environment or set PYTHON"
if [[ "$platforms" == *cuda* ]] && ! command -v nvidia-smi >/dev/null; then
  fail "no NVIDIA driver here (nvidia-smi is missing); for a trial set JAX_PLATFORMS=cpu"
fi
export "${settings[@]}"
exec "${command[@]}"
