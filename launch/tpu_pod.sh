#!/usr/bin/env bash
# A Cloud TPU slice: get it, put this commit on it, and run stepcoder on all its hosts.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/common.bash
source "$here/common.bash"

usage() {
  cat <<'TEXT'
A Cloud TPU slice: get it, put this commit on it, and run stepcoder on all its hosts.

usage: launch/tpu_pod.sh VERB --name NAME --zone ZONE [option ...] [COMMAND [ARGUMENT ...]]

  launch/tpu_pod.sh run --name v6 --zone europe-west4-a --type v6e-16 --spot \
    train experiments/quickstart.py --run.folder /nfs/runs/quickstart
  launch/tpu_pod.sh start --name v6 --zone europe-west4-a \
    train experiments/quickstart.py --run.folder /nfs/runs/quickstart

  create   ask for the slice (a queued resource), and wait until it is there
  push     put this commit on each host
  install  make the environment on each host
  start    run COMMAND on all hosts, detached: it outlives this terminal and this machine
  logs     the end of its output on one host
  status   of the slice, and of the run on each host
  stop     SIGTERM to all hosts, and wait until they have saved
  run      create, push, install and start; then wait for the end, and start again after exit
           code 75 or when the slice was taken away, with --run.resume auto. Ctrl-C ends the
           waiting, not the run; the slice stays, and costs, until `delete`
  delete   the slice, and what is on its disks

  --name NAME       the slice, and its request
  --zone ZONE       its zone
  --project NAME    its project (gcloud's default project if not given)
  --type TYPE       create, run: the accelerator type, as v6e-16
  --version NAME    create, run: the runtime version (by the type)
  --spot            create, run: cheaper, and may be taken away
  --folder FOLDER   the checkout on each host, from the home folder (stepcoder_jax)
  --dirty           push, run: with the changes to tracked files that are not committed
  --worker N        logs: of which host (0)
  --follow          logs: go on
  --wait S          stop: seconds for the save (600)
  --tries N         run: starts in all (20)
  --dry-run         print every command that would run, and stop
  --help            show this text

The folder of the run must be on a disk that all hosts have mounted (NFS, Filestore), and that
outlives the slice.
TEXT
}

verb="${1:-}"
case "$verb" in
  --help | -h) usage; exit 0 ;;
  create | push | install | start | logs | status | stop | run | delete) shift ;;
  --dry-run) fail "expected a verb before --dry-run; see --help" ;;
  *) fail "expected create, push, install, start, logs, status, stop, run or delete first,\
 got '$verb'; see --help" ;;
esac

name="" zone="" project="" type="" version="" folder="stepcoder_jax"
spot=false dirty=false follow=false worker=0 wait=600 tries=20
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help | -h) usage; exit 0 ;;
    --dry-run) dry_run=true; shift ;;
    --spot | --dirty | --follow)
      printf -v "${1#--}" true
      shift
      ;;
    --name | --zone | --project | --type | --version | --folder | --worker | --wait | --tries)
      need_value "$1" $# "${2:-}"
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    -*) fail "unknown option $1; options of stepcoder follow its command (see --help)" ;;
    *) break ;;
  esac
done
[[ -n "$name" ]] || fail "--name is missing: which slice?"
[[ -n "$zone" ]] || fail "--zone is missing: in which zone is $name?"
need_count --worker "$worker" 0
need_count --wait "$wait"
need_count --tries "$tries"
case "$verb" in
  start | run) [[ $# -gt 0 ]] || fail "expected a command such as 'train EXPERIMENT'; see --help" ;;
  *) [[ $# -eq 0 ]] || fail "$verb takes no command, got '$1'; see --help" ;;
esac
case "$verb" in
  create | run) [[ -n "$type" ]] || fail "--type is missing: which accelerator, as v6e-16?" ;;
esac
case "$version,$type" in
  ,v6e-*) version=v2-alpha-tpuv6e ;;
  ,v5litepod-*) version=v2-alpha-tpuv5-lite ;;
  ,v5p-*) version=v2-alpha-tpuv5 ;;
  ,*) version=tpu-ubuntu2204-base ;;
esac

queue=(gcloud compute tpus queued-resources)
vm=(gcloud compute tpus tpu-vm)
where=("--zone=$zone" --quiet)
if [[ -n "$project" ]]; then where+=("--project=$project"); fi

# Run on_host.sh on hosts ("all", or a number), in the checkout that was pushed.
on_hosts() {
  local workers="$1" words
  shift
  words="$(printf '%q ' "$folder/launch/on_host.sh" "$@")"
  act "${vm[@]}" ssh "$name" "${where[@]}" "--worker=$workers" "--command=${words% }"
}

# What the request for the slice has come to, in `state`: MISSING where there is none.
look_at_slice() {
  state="$("${queue[@]}" describe "$name" "${where[@]}" '--format=value(state.state)' 2>&1)" ||
    case "$state" in
      *NOT_FOUND* | *"not found"*) state=MISSING ;;
      *) state=UNKNOWN ;; # this machine has no network: it may come back
    esac
}

# The same of its machines: a slice may be taken away from under a request that is ACTIVE.
look_at_machines() {
  machines="$("${vm[@]}" describe "$name" "${where[@]}" '--format=value(state)' 2>&1)" ||
    machines=UNKNOWN
}

create() {
  local request=(
    "${queue[@]}" create "$name" "${where[@]}" "--node-id=$name"
    "--accelerator-type=$type" "--runtime-version=$version"
  )
  if "$spot"; then request+=(--spot); fi
  if "$dry_run"; then
    show "${request[@]}"
    note "until it is ACTIVE, every 30 s:"
    show "${queue[@]}" describe "$name" "${where[@]}" '--format=value(state.state)'
    return
  fi
  local said=""
  look_at_slice
  if [[ "$state" == MISSING ]]; then
    if ! "${request[@]}"; then
      say "the slice was not asked for; see what gcloud says above"
      return 2
    fi
    look_at_slice
  fi
  while [[ "$state" != ACTIVE ]]; do
    if [[ "$state" != "$said" ]]; then say "$name is $state"; fi
    said="$state"
    case "$state" in
      FAILED | SUSPEND* | DELETING)
        say "it will not come; 'delete' it, then ask again"
        return 75
        ;;
    esac
    sleep 30
    look_at_slice
  done
  say "$name is ACTIVE"
}

root="$(cd "$here/.." && pwd)"

# What is to be pushed, in `commit`: once, so that a run that goes on has what it began with.
choose_commit() {
  commit="$(git -C "$root" rev-parse HEAD 2>/dev/null)" || fail "$root is no git checkout"
  if [[ -n "$(git -C "$root" status --porcelain --untracked-files=no)" ]]; then
    "$dirty" || fail "there are changes that are not committed; commit them, or give --dirty"
    commit="$(git -C "$root" stash create)" # a commit of them, on no branch
  fi
}

push() {
  local ref=refs/launch/push scratch=/tmp there bundle="$name.bundle" unpack
  there="$(printf '%q' "$folder")"
  unpack="git init -q $there && cd $there && git fetch -q ~/$(printf '%q' "$bundle") $ref"
  unpack+=" && git checkout -q --force --detach FETCH_HEAD && rm ~/$(printf '%q' "$bundle")"
  if ! "$dry_run"; then scratch="$(mktemp -d)"; fi
  # a chain, since nobody stops at an error in what `if` or `||` calls
  act git -C "$root" update-ref "$ref" "$commit" &&
    act git -C "$root" bundle create -q "$scratch/$bundle" "$ref" &&
    act git -C "$root" update-ref -d "$ref" &&
    act "${vm[@]}" scp "$scratch/$bundle" "$name:$bundle" "${where[@]}" --worker=all &&
    act "${vm[@]}" ssh "$name" "${where[@]}" --worker=all "--command=$unpack" || return 1
  "$dry_run" && return
  rm -r "$scratch"
  say "pushed ${commit:0:12}"
}

status() {
  if "$dry_run"; then
    show "${queue[@]}" describe "$name" "${where[@]}" '--format=value(state.state)'
  else
    look_at_slice
    echo "$name is $state"
    if [[ "$state" != ACTIVE ]]; then return; fi
  fi
  on_hosts all status
}

delete() {
  act "${queue[@]}" delete "$name" "${where[@]}" --force
}

# Whether the slice is there, in `slice`: here, taken, or unknown.
look_for_slice() {
  slice=here
  look_at_slice
  case "$state" in
    UNKNOWN) slice=unknown ;;
    ACTIVE) look_at_machines ;;
    *) slice=taken ;;
  esac
  if [[ "$slice" == here ]]; then
    case "$machines" in
      PREEMPTED | TERMINATED | STOPPED | DELETING) slice=taken state="$machines" ;;
    esac
  fi
}

# What has become of a run that was started, in `outcome`: running, unknown, taken (with the
# slice), stopped, or the exit code of the run.
look_at_run() {
  local said line told=false lost=false stopped=false
  look_for_slice
  outcome="$slice"
  [[ "$slice" == here ]] || return 0
  outcome=unknown
  said="$(on_hosts all status 2>/dev/null)" || return 0
  while read -r line; do
    case "$line" in
      running*) outcome=running; return ;;
      "stopped "*) stopped=true ;;
      "ended 0") ;;
      "ended 75" | lost | none) lost=true ;;
      "ended "*) outcome="${line#ended }" ;;
      *) continue ;; # gcloud's own words
    esac
    told=true
  done <<<"$said"
  if "$stopped"; then outcome=stopped; fi
  if [[ "$outcome" != unknown ]] || ! "$told"; then return 0; fi
  if "$lost"; then outcome=75; else outcome=0; fi
}

prepare() {
  create || return $?
  push && on_hosts all install
}

show_run() {
  prepare
  on_hosts all start "$@"
  note "until it has ended, every 60 s:"
  status
  show "${vm[@]}" describe "$name" "${where[@]}" '--format=value(state)'
  note "after exit code 75, at most $((tries - 1)) times:"
  on_hosts all start "${again[@]}"
  note "the same when the slice was taken away, but before it:"
  delete
  prepare
}

# One start of the command and its end, in `outcome`; `fresh`: on a slice without it.
run_once() {
  local code=0
  if "$fresh"; then
    prepare || code=$?
    if [[ "$code" != 0 ]]; then
      look_for_slice
      outcome="$slice"
      if [[ "$code" == 2 ]]; then outcome=here; fi
      return
    fi
    fresh=false
  fi
  if ! on_hosts all start "$@"; then
    look_for_slice
    outcome="$slice"
    return
  fi
  wait_for_run
}

wait_for_run() {
  look_at_run
  while [[ "$outcome" == running || "$outcome" == unknown ]]; do
    sleep 60
    look_at_run
  done
}

run() {
  local begun fresh=true
  choose_commit
  with_resume "$@"
  if "$dry_run"; then
    show_run "$@"
    return
  fi
  look_at_run
  for ((begun = 1; begun <= tries; begun++)); do
    if [[ "$begun" == 1 && "$outcome" == running ]]; then
      say "it runs already: waiting for its end"
      fresh=false
      wait_for_run
    else
      run_once "$@"
    fi
    case "$outcome" in
      taken)
        say "the slice was taken away, or did not come ($state)"
        fresh=true
        ;;
      75) say "exit code 75: lost, stalled or preempted" ;;
      here | unknown) # the slice may be well, but something on it failed
        say "the hosts could not be made ready; see above"
        if [[ "$begun" == 1 ]]; then return 2; fi
        ;;
      stopped)
        say "stopped by '$script stop'; the same command goes on with --run.resume auto"
        return 75
        ;;
      *)
        if [[ "$outcome" != 0 ]]; then on_hosts "$worker" logs || true; fi
        say "ended with exit code $outcome; '$script delete' gives the slice back"
        return "$outcome"
        ;;
    esac
    if [[ "$begun" -lt "$tries" ]]; then
      if [[ "$outcome" == taken && "$state" != MISSING ]]; then delete || true; fi
      sleep 30
      say "start $((begun + 1)) of $tries, with what was saved"
      set -- "${again[@]}"
    fi
  done
  say "given up after $tries starts"
  return 75
}

"$dry_run" || need_program gcloud "install the Google Cloud CLI"
{ # read as a whole: the file may change while a run is waited for
  case "$verb" in
    create) create ;;
    push) choose_commit && push ;;
    install) on_hosts all install ;;
    start) on_hosts all start "$@" ;;
    logs)
      if "$follow"; then on_hosts "$worker" logs --follow; else on_hosts "$worker" logs; fi
      ;;
    status) status ;;
    stop) on_hosts all stop "$wait" ;;
    run) run "$@" ;;
    delete) delete ;;
  esac
  exit
}
