#!/usr/bin/env bash
# Submit a run of stepcoder on GPU nodes to Slurm, which starts it again when it is lost.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/common.bash
source "$here/common.bash"

usage() {
  cat <<'TEXT'
Submit a run of stepcoder on GPU nodes to Slurm, one task a node with all its GPUs.

usage: launch/slurm.sh [option ...] COMMAND [ARGUMENT ...]

  launch/slurm.sh --nodes 2 --gpus 8 --time 12:00:00 \
    train experiments/quickstart.py --run.folder runs/slurm
  launch/slurm.sh --signal 600 --sbatch --account=me --sbatch --qos=low \
    train experiments/quickstart.py

  --nodes N        nodes (1)
  --gpus N         GPUs of each node (8)
  --time T         limit of the job, as sbatch has it (24:00:00)
  --signal S       seconds before the limit at which the run is told to save and end (300);
                   refused where the run's longest save so far takes more than half of it
  --tries N        after exit code 75 (limit, lost, stalled) the job is queued again, and goes
                   on with --run.resume auto: N starts in all (20)
  --sbatch OPTION  for sbatch as it is, as often as needed
  --dry-run        print exactly what would run, here and in the job, and stop
  --help           show this text

Submit from the checkout, in its environment: the job runs there. Its folder, and that of the
run, must be on a disk that all nodes see. Output goes to NAME-JOB.out. Variables that are
already set win: PYTHON (python), and those of gpu_node.sh.
TEXT
}

nodes=1 gpus=8 time="24:00:00" signal=300 tries=20 in_job=false
extra=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help | -h) usage; exit 0 ;;
    --dry-run) dry_run=true; shift ;;
    --in-job) in_job=true; shift ;; # what the job itself calls
    --nodes | --gpus | --time | --signal | --tries)
      need_value "$1" $# "${2:-}"
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    --sbatch)
      [[ "${2:-}" == -* ]] || fail "--sbatch needs an option of sbatch, as --qos=low"
      extra+=("$2")
      shift 2
      ;;
    -*) fail "unknown option $1; options of stepcoder follow its command (see --help)" ;;
    *) break ;;
  esac
done
[[ $# -gt 0 ]] || fail "expected a command such as 'train EXPERIMENT'; see --help"
need_count --nodes "$nodes"
need_count --gpus "$gpus"
need_count --signal "$signal"
need_count --tries "$tries"

# Seconds of a limit such as 30, 30:00, 2:00:00, 1-12, 1-12:30 and 1-12:30:00.
seconds_of() {
  [[ "$1" =~ ^([0-9]+-)?[0-9]+(:[0-9]+){0,2}$ ]] ||
    fail "--time: expected a limit such as 90 (minutes), 12:00:00 or 2-00:00:00, got '$1'"
  local days=0 clock="$1" first second third
  if [[ "$1" == *-* ]]; then days="${1%%-*}" clock="${1#*-}"; fi
  IFS=: read -r first second third <<<"$clock"
  if [[ "$1" == *-* || -n "$third" ]]; then # hours first
    seconds=$((10#$days * 86400 + 10#$first * 3600 + 10#${second:-0} * 60 + 10#${third:-0}))
  else # minutes first
    seconds=$((10#$first * 60 + 10#${second:-0}))
  fi
}

# The longest save of the run in the folder that the command names: seconds, rounded up.
longest_save() {
  local folder="" word before=""
  for word in "$@"; do
    if [[ "$before" == --run.folder ]]; then folder="$word"; fi
    if [[ "$word" == --run.folder=* ]]; then folder="${word#*=}"; fi
    before="$word"
  done
  save=0
  [[ -n "$folder" && -r "$folder/metrics.jsonl" ]] || return 0
  save="$(awk 'match($0, /"seconds\/save": *[0-9.e+-]+/) {
      found = substr($0, RSTART, RLENGTH); sub(/.*: */, "", found)
      if (found + 0 > most) most = found + 0
    }
    END { up = int(most); print up + (most > up) }' "$folder/metrics.jsonl")"
}

python="${PYTHON:-python}"
gpu_settings
with_resume "$@"

# The command of each node, in `step`.
step_of() {
  local words=("${settings[@]}")
  # one node is one process, which needs no others
  if [[ "$nodes" -gt 1 ]]; then words+=(STEPCODER_DISTRIBUTED=1); fi
  # the processes end together by themselves, each with its last words
  step=(
    srun "--nodes=$nodes" --ntasks-per-node=1 --kill-on-bad-exit=0
    env "${words[@]}" "$python" -m stepcoder_jax "$@"
  )
  if [[ -n "${SLURM_CPUS_PER_TASK:-}" ]]; then
    step=(srun "--cpus-per-task=$SLURM_CPUS_PER_TASK" "${step[@]:1}")
  fi
}

if "$in_job"; then
  restarts="${SLURM_RESTART_COUNT:-0}"
  if [[ "$restarts" -gt 0 ]]; then step_of "${again[@]}"; else step_of "$@"; fi
  code=0
  "${step[@]}" || code=$?
  if [[ "$code" == 75 && $((restarts + 1)) -lt "$tries" ]]; then
    say "exit code 75: start $((restarts + 2)) of $tries is queued"
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$code"
fi

seconds_of "$time"
[[ "$signal" -lt "$seconds" ]] ||
  fail "--signal $signal: expected less than the limit of the job, --time $time ($seconds s)"
longest_save "$@"
[[ "$signal" -ge $((2 * save)) ]] || fail "--signal $signal: comes too late, a save of this\
 run took $save s; give at least --signal $((2 * save))"

job="$(printf '%q ' "$here/slurm.sh" --in-job --nodes "$nodes" --tries "$tries" "$@")"
submit=(
  sbatch --job-name=stepcoder "--nodes=$nodes" --ntasks-per-node=1
  "--gpus-per-node=$gpus" --exclusive "--time=$time"
  # to the tasks, not to the script around them, which waits for their code
  "--signal=TERM@$signal"
  --requeue --open-mode=append --output=%x-%j.out "${extra[@]}" "--wrap=exec ${job% }"
)
if "$dry_run"; then
  show "${submit[@]}"
  note "in the job:"
  step_of "$@"
  show "${step[@]}"
  if [[ "$tries" -gt 1 ]]; then
    note "after exit code 75, at most $((tries - 1)) times, from the queue:"
    # shellcheck disable=SC2016 # a variable of the job
    echo 'scontrol requeue "$SLURM_JOB_ID"'
    step_of "${again[@]}"
    show "${step[@]}"
  fi
  exit 0
fi
need_program sbatch "submit where Slurm is"
need_program "$python" "activate the environment or set PYTHON"
exec "${submit[@]}"
