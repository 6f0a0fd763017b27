#!/usr/bin/env bash
# Run one stepcoder command on every host of a Cloud TPU slice.
set -euo pipefail

usage() {
  cat <<'TEXT'
Run one stepcoder command on every host of a Cloud TPU slice.

usage: launch/tpu_pod.sh --name NAME --zone ZONE [option ...] COMMAND [ARGUMENT ...]

  launch/tpu_pod.sh --name my-v5e --zone us-west4-a train experiments/quickstart.py \
    --run.folder /nfs/runs/quickstart

  --name NAME       the TPU VM
  --zone ZONE       its zone
  --project NAME    its project (gcloud's default project if not given)
  --folder FOLDER   the checkout on each host, from the home folder (stepcoder_jax)
  --python PYTHON   the interpreter in it (.venv/bin/python)
  --dry-run         print exactly what would run, and stop
  --help            show this text

Each host needs the same checkout, installed with the `tpu` extra, and the same files under
the same paths. The folder of the run must be on a disk that all hosts have mounted (NFS,
Filestore): URLs such as gs://... are refused.
TEXT
}

fail() {
  echo "tpu_pod.sh: $1" >&2
  exit 2
}

name="" zone="" project="" folder="stepcoder_jax" python=".venv/bin/python" dry_run=false
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help | -h) usage; exit 0 ;;
    --dry-run) dry_run=true; shift ;;
    --name | --zone | --project | --folder | --python)
      [[ $# -gt 1 && "$2" != -* ]] || fail "$1 needs a value; see --help"
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    -*) fail "unknown option $1; options of stepcoder follow its command (see --help)" ;;
    *) break ;;
  esac
done
[[ -n "$name" ]] || fail "--name is missing: which TPU VM? ('gcloud compute tpus tpu-vm list')"
[[ -n "$zone" ]] || fail "--zone is missing: in which zone is $name?"
[[ $# -gt 0 ]] || fail "expected a command such as 'train EXPERIMENT'; see --help"

# Every host runs the same program; with this variable each calls
# jax.distributed.initialize(), which finds the others from the TPU's metadata.
remote="cd $(printf '%q' "$folder") && STEPCODER_DISTRIBUTED=1 exec"
remote+="$(printf ' %q' "$python" -m stepcoder_jax "$@")"

command=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all)
[[ -z "$project" ]] || command+=("--project=$project")
command+=("--command=$remote")

if "$dry_run"; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
command -v gcloud >/dev/null || fail "no gcloud on PATH; install the Google Cloud CLI"
exec "${command[@]}"
