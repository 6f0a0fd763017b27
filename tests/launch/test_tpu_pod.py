"""The life of a slice: asked for, filled, run on, taken away, had again, given back."""

import shutil
import subprocess

import pytest

from tests.launch.kit import LAUNCH, StandIns, wait_for

SLICE = ("--name", "pod", "--zone", "z-a")
ASKED = (*SLICE, "--type", "v6e-8", "--spot")
COMMAND = ("train", "a.py", "--x", "a b")
FIRST, AGAIN = "train a.py --x a b", "train a.py --x a b --run.resume auto"


class Pod(StandIns):
    """A checkout of the launchers alone, and a cloud of two hosts."""

    def __init__(self, folder, plan="0"):
        super().__init__(folder, plan)
        self.checkout = folder / "checkout"
        shutil.copytree(LAUNCH, self.checkout / "launch")
        self.git("init", "-q")
        self.git("add", "-A")
        named = ("-c", "user.name=x", "-c", "user.email=x@y")
        self.git(*named, "commit", "-qm", "first")

    def git(self, *words, at=""):
        return subprocess.run(
            ["git", "-C", str(at or self.checkout), *words],
            env=self.env,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def pod(self, verb, *words):
        return self.run(self.checkout / "launch" / "tpu_pod.sh", verb, *words)

    def are_ready(self):
        """Whether each host of the slice has a trainer that a signal would end well."""
        running = self.pod("status", *SLICE).stdout.count("running")
        return running == 2 and all(self.read(f"host{i}/ready") for i in (0, 1))

    def starts(self):
        """What was started on host 0 of each slice, the first slice first."""
        gone = sorted(self.state.glob("gone*"))[::2]
        return [self.read(f"{folder.name}/starts") for folder in gone] + [
            self.read("host0/starts")
        ]


@pytest.fixture
def pod(tmp_path):
    return Pod(tmp_path)


def test_each_verb_of_a_slice_in_its_turn(pod):
    pod.write("plan", "long")
    made = pod.pod("create", *ASKED)
    assert made.returncode == 0, made.stderr
    assert "pod is ACTIVE" in made.stderr
    assert pod.pod("push", *SLICE).returncode == 0
    host = pod.state / "host1" / "stepcoder_jax"
    assert pod.git("rev-parse", "HEAD", at=host) == pod.git("rev-parse", "HEAD")
    assert not list((pod.state / "host1").glob("*.bundle"))
    assert "no .venv; install first" in pod.pod("start", *SLICE, *COMMAND).stderr
    assert pod.pod("install", *SLICE).returncode == 0
    assert pod.pod("status", *SLICE).stdout.splitlines() == [
        "pod is ACTIVE",
        "none",
        "none",
    ]
    started = pod.pod("start", *SLICE, *COMMAND)
    assert started.returncode == 0, started.stderr
    # nothing of it hangs on the terminal: `start` is over, and it runs
    assert pod.pod("status", *SLICE).stdout.count("running") == 2
    wait_for(pod.are_ready)
    assert pod.read("host1/starts") == [FIRST]
    twice = pod.pod("start", *SLICE, *COMMAND)
    assert twice.returncode == 2 and "it runs already here" in twice.stderr
    stopped = pod.pod("stop", *SLICE)
    assert stopped.stdout.splitlines() == ["stopped 75"] * 2, stopped.stderr
    pod.write("plan", "0 7")
    assert pod.pod("start", *SLICE, *COMMAND).returncode == 0
    wait_for(lambda: pod.pod("status", *SLICE).stdout.count("ended 7") == 2)
    assert "ending with 7" in pod.pod("logs", *SLICE, "--worker", "1").stdout
    assert pod.pod("delete", *SLICE).returncode == 0
    assert pod.pod("status", *SLICE).stdout == "pod is MISSING\n"


def test_push_refuses_what_is_not_committed_unless_it_is_told(pod):
    pod.pod("create", *ASKED)
    changed = pod.checkout / "launch" / "common.bash"
    changed.write_text(changed.read_text() + "# changed\n")
    refused = pod.pod("push", *SLICE)
    assert refused.returncode == 2 and "give --dirty" in refused.stderr
    assert pod.pod("push", *SLICE, "--dirty").returncode == 0
    there = pod.state / "host0" / "stepcoder_jax" / "launch" / "common.bash"
    assert there.read_text() == changed.read_text()
    assert pod.git("status", "--porcelain").split() == ["M", "launch/common.bash"]
    pod.git("checkout", "-q", ".")
    assert pod.pod("push", *SLICE).returncode == 0
    assert there.read_text() == changed.read_text()  # which is the commit's again
    assert pod.git("for-each-ref", "refs/launch") == ""


@pytest.mark.parametrize(
    ("plan", "code", "starts"),
    [
        ("75 crash 0", 0, [[FIRST, AGAIN, AGAIN]]),
        ("2", 2, [[FIRST]]),
        ("75", 75, [[FIRST, AGAIN, AGAIN]]),  # --tries
    ],
)
def test_a_run_is_started_again_until_it_has_ended(pod, plan, code, starts):
    pod.write("plan", plan)
    ended = pod.pod("run", *ASKED, "--tries", "3", *COMMAND)
    assert ended.returncode == code, ended.stderr
    assert pod.starts() == starts
    assert pod.read("calls").count("queued-resources create pod") == 1
    if code == 2:
        assert "ending with 2" in ended.stdout  # the log's end


def test_a_slice_that_is_taken_away_is_had_again(pod):
    pod.write("plan", "taken 0")
    pod.write("failing", 1)
    ended = pod.pod("run", *ASKED, *COMMAND)
    assert ended.returncode == 0, ended.stderr
    assert pod.starts() == [[], [AGAIN], [AGAIN]]  # the first never came
    assert pod.read("calls").count("queued-resources delete pod") == 2
    assert "did not come (FAILED)" in ended.stderr
    assert "taken away, or did not come (SUSPENDED)" in ended.stderr


def test_a_slice_whose_machines_are_taken_is_had_again(pod):
    pod.write("plan", "long")
    pod.write("machines", "PREEMPTED")
    run = pod.begin(pod.checkout / "launch" / "tpu_pod.sh", "run", *ASKED, *COMMAND)
    wait_for(lambda: len(pod.starts()) == 2 and pod.starts()[1], run)
    assert pod.starts() == [[FIRST], [AGAIN]]
    wait_for(pod.are_ready, run)
    # whoever asks again finds it running, and waits
    stopped = pod.pod("stop", *SLICE)
    assert stopped.stdout.count("stopped 75") == 2
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 75 and "stopped by" in errors


def test_what_waits_for_a_run_may_end_and_begin_again(pod):
    pod.write("plan", "long")
    script = pod.checkout / "launch" / "tpu_pod.sh"
    run = pod.begin(script, "run", *ASKED, *COMMAND)
    wait_for(pod.are_ready, run)
    run.terminate()
    run.communicate(timeout=30)
    again = pod.begin(script, "run", *ASKED, *COMMAND)
    while "it runs already" not in (line := again.stderr.readline()):
        assert line, "it did not wait"
    pod.write("offline", 2)  # this machine has no network for a while
    offline = pod.state / "offline"
    wait_for(lambda: offline.read_text().strip() not in ("", "2", "1"), again)
    assert pod.pod("stop", *SLICE).returncode == 0
    _, errors = again.communicate(timeout=60)
    assert again.returncode == 75, errors
    assert pod.read("host0/starts") == [FIRST]


def test_a_request_that_is_refused_ends_it(pod):
    pod.write("refused", 1)
    ended = pod.pod("run", *ASKED, *COMMAND)
    assert ended.returncode == 2 and pod.starts() == [[]]
    assert "no such type" in ended.stderr
