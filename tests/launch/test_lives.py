"""The life of a run on one machine and under Slurm: lost, started again, ended."""

import signal

import pytest

from tests.launch.kit import LAUNCH, StandIns, wait_for

GPU, SLURM = LAUNCH / "gpu_node.sh", LAUNCH / "slurm.sh"
LOCAL = LAUNCH / "local_multiprocess.sh"
AGAIN = " --run.resume auto"


@pytest.mark.parametrize(
    ("plan", "tries", "code", "starts"),
    [
        ("0", 3, 0, 1),
        ("75 75 0", 3, 0, 3),
        ("75", 3, 75, 3),
        ("75", 1, 75, 1),
        ("75 2", 5, 2, 2),
        ("1", 5, 1, 1),  # a bug is not mended by another start
        ("130", 5, 130, 1),
    ],
)
def test_a_node_starts_again_what_was_lost(tmp_path, plan, tries, code, starts):
    stand_ins = StandIns(tmp_path, plan)
    ended = stand_ins.run(GPU, "--tries", str(tries), "train", "a.py", "--x", "a b")
    assert ended.returncode == code, ended.stderr
    first = "train a.py --x a b"
    assert stand_ins.read("starts") == [first] + [first + AGAIN] * (starts - 1)
    assert ended.stderr.count("exit code 75: start") == starts - 1


def test_only_what_can_be_resumed_is_resumed(tmp_path):
    stand_ins = StandIns(tmp_path, "75 0")
    assert stand_ins.run(GPU, "evaluate", "runs/a").returncode == 0
    assert stand_ins.read("starts") == ["evaluate runs/a"] * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_nothing_is_started_again(tmp_path, number):
    stand_ins = StandIns(tmp_path, "long")
    run = stand_ins.begin(GPU, "train", "a.py")
    wait_for((stand_ins.state / "ready").exists, run)
    run.send_signal(number)
    _, errors = run.communicate(timeout=30)
    assert run.returncode == 75, errors
    assert len(stand_ins.read("starts")) == 1


@pytest.mark.parametrize(("plan", "code"), [("0", 0), ("2", 2)])
def test_local_processes_end_with_one_code(tmp_path, plan, code):
    stand_ins = StandIns(tmp_path, plan)
    ended = stand_ins.run(LOCAL, "3", "train", "a.py")
    assert ended.returncode == code and stand_ins.read("starts") == ["train a.py"] * 3


def test_a_signal_reaches_all_local_processes(tmp_path):
    stand_ins = StandIns(tmp_path, "long")
    run = stand_ins.begin(LOCAL, "2", "train", "a.py")
    wait_for(lambda: len(stand_ins.read("ready")) == 2, run)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=30)
    assert run.returncode == 75, errors
    assert stand_ins.left == []


def test_what_a_test_leaves_is_ended(tmp_path):
    stand_ins = StandIns(tmp_path, "long")
    run = stand_ins.begin(LOCAL, "2", "train", "a.py")
    wait_for(lambda: len(stand_ins.read("ready")) == 2, run)
    assert len(stand_ins.left) > 4  # the script, its two groups, what each runs
    run.kill()  # as where pytest is killed: its groups do not hear of it
    run.wait()
    assert stand_ins.left
    stand_ins.end()
    assert stand_ins.left == []


def test_a_local_process_that_stays_alone_is_ended(tmp_path):
    stand_ins = StandIns(tmp_path, "1 long")
    quick = tmp_path / "quick"  # the same, with less patience
    quick.mkdir()
    for file in LAUNCH.iterdir():
        text = file.read_text().replace("grace=60", "grace=1")
        (quick / file.name).write_text(text)
    (quick / LOCAL.name).chmod(0o755)
    ended = stand_ins.run(quick / LOCAL.name, "2", "train", "a.py")
    assert ended.returncode == 1
    assert "ended with code 1, 1 did not within 1 s" in ended.stderr
    assert stand_ins.left == []


@pytest.mark.parametrize(
    ("plan", "tries", "codes"),
    [
        ("0", "20", ["0"]),
        ("75 75 0", "20", ["75", "75", "0"]),
        ("75", "2", ["75", "75"]),
        ("75 2", "20", ["75", "2"]),
    ],
)
def test_a_job_of_slurm_is_queued_again(tmp_path, plan, tries, codes):
    stand_ins = StandIns(tmp_path, plan)
    words = ("--nodes", "2", "--tries", tries, "train", "a.py", "--x", "a b")
    ended = stand_ins.run(SLURM, *words)
    assert ended.returncode == 0, ended.stderr  # of sbatch
    assert stand_ins.read("codes") == codes
    first = "train a.py --x a b"
    assert stand_ins.read("starts") == [first] + [first + AGAIN] * (len(codes) - 1)
    calls = stand_ins.read("calls")
    assert calls.count("scontrol requeue 7") == len(codes) - 1
    assert calls[0].startswith(
        "srun --nodes=2 --ntasks-per-node=1 --kill-on-bad-exit=0 env "
    )
    assert " STEPCODER_DISTRIBUTED=1 " in calls[0]
    submitted = stand_ins.read("sbatch")
    for option in ("--signal=TERM@300", "--requeue", "--gpus-per-node=8", "--nodes=2"):
        assert option in submitted


def test_one_node_of_slurm_is_one_process(tmp_path):
    stand_ins = StandIns(tmp_path)
    assert stand_ins.run(SLURM, "--sbatch", "--qos=low", "train", "a.py").returncode == 0
    assert "STEPCODER_DISTRIBUTED" not in " ".join(stand_ins.read("calls"))
    assert "--qos=low" in stand_ins.read("sbatch")


@pytest.mark.parametrize("form", [("--run.folder", "{}"), ("--run.folder={}",)])
def test_a_signal_that_comes_later_than_a_save_takes_is_refused(tmp_path, form):
    stand_ins = StandIns(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    rows = (
        '{"step": 1, "seconds/save": 12.5}',
        '{"seconds/save": 100.2}',
        '{"seconds/save": 3}',
    )
    (run / "metrics.jsonl").write_text("\n".join((*rows, '{"seconds/save_blocked": 999}')))
    flags = [word.format(run) for word in form]
    refused = stand_ins.run(SLURM, "--signal", "201", "train", "a.py", *flags)
    assert refused.returncode == 2 and not stand_ins.read("sbatch")
    said = "a save of this run took 101 s; give at least --signal 202"
    assert said in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert stand_ins.run(SLURM, "--signal", "202", "train", "a.py", *flags).returncode == 0


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("5", 300), ("5:30", 330), ("1:00:00", 3600), ("1-0", 86400), ("0-00:10", 600)],
)
def test_a_signal_that_comes_before_the_job_begins_is_refused(tmp_path, limit, seconds):
    stand_ins = StandIns(tmp_path)
    words = ("--dry-run", "--time", limit, "--signal")
    assert stand_ins.run(SLURM, *words, str(seconds - 1), "train").returncode == 0
    refused = stand_ins.run(SLURM, *words, str(seconds), "train")
    assert refused.returncode == 2 and f"--time {limit} ({seconds} s)" in refused.stderr
