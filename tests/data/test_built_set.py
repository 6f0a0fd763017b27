"""The ArrayRecord data set: what is built is read again, and damage is named."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from stepcoder_jax.config import Config
from stepcoder_jax.data.building.apps_plus_builder import AppsPlus, find_files
from stepcoder_jax.data.building.build import build_set
from stepcoder_jax.data.formats import built_set, own
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.data.problems import digest, read_any
from stepcoder_jax.records import Mode, Problem, TestCase
from stepcoder_jax.runs.disk import sources
from tests.execution.kit import need_data

ODD = Problem(
    "odd/é\u2028",
    'A "statement"\r\n\0',
    "",
    "",
    "f",
    Mode.CALL,
    (
        TestCase(((1, 2), {1: "a"}, {"python": 1}), [1.5, None, 10**30]),
        TestCase((b"\xff",), (True,)),
    ),
    "hard",
    2.5,
    {"source": ["é", {"a": None}]},
    (TestCase(((1, 2), {1: "a"}), 1),),
)
MAIN = Problem("m", "s", "", "x", None, Mode.STDIN_MAIN, (TestCase("", "\n"),), "easy")
CODE = dataclasses.replace(
    ODD,
    id="code",
    mode=Mode.ASSERT_PROXY,
    tests=(TestCase("assert f()", None),),
    visible_tests=(),
)


@pytest.fixture(scope="module")
def problems():
    return [ODD, *benchmark.generate("train", 2, (5, 5, 5)), MAIN, CODE]


@pytest.fixture(scope="module")
def files(problems, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    own.write(problems, folder / "train.jsonl")
    own.write(problems[:3], folder / "test.jsonl")
    return {name: str(folder / f"{name}.jsonl") for name in ("train", "test")}


@pytest.fixture(scope="module")
def built(files, tmp_path_factory):
    return build_set(str(tmp_path_factory.mktemp("built")), files)


def test_all_that_was_written_is_read_in_its_order(built, problems):
    assert built.parts[-2:] == ("apps_plus", "1.0.0")
    train = built_set.open_split(str(built), "train")
    assert list(train) == problems and len(train) == len(problems)
    assert train[-1] == problems[-1] and train[2:5] == problems[2:5]
    assert list(built_set.open_split(str(built), "test")) == problems[:3]
    for row in (len(problems), -len(problems) - 1):
        with pytest.raises(IndexError):
            train[row]


def test_it_is_read_like_any_problem_file(built, problems):
    assert read_any(f"{built}:train", strict=True) == (problems, [])
    assert digest(f"{built}:train") == digest(str(built))
    with pytest.raises(DataError, match=r"is a folder; expected .*FOLDER:SPLIT"):
        read_any(str(built), strict=True)
    with pytest.raises(DataError, match=r"has no split 'validation', but test, train"):
        read_any(f"{built}:validation", strict=True)


def test_metadata(built, files):
    found = built_set.read_metadata(str(built))
    assert found["sources"]["train"] == {
        "name": "train.jsonl",
        "sha256": digest(files["train"]),
        "rows_sha256": hashlib.sha256(Path(files["train"]).read_bytes()).hexdigest(),
        "bad_rows": [],
        "left_out": 0,
    }
    shards = sorted(path.name for path in built.glob("apps_plus-*"))
    assert sorted(found["sha256"]) == shards and len(shards) == 2
    info = json.loads((built / "dataset_info.json").read_text())
    assert info["fileFormat"] == "array_record" and info["version"] == "1.0.0"


def test_a_data_set_is_not_overwritten(built, files):
    before = digest(str(built))
    with pytest.raises(DataError, match=r"FOLDER: .* is built already; give a new folder"):
        build_set(str(built.parent.parent), {"train": files["test"]})
    assert digest(str(built)) == before


def test_a_folder_that_cannot_be_written(files, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match=r"FOLDER: .* cannot be written"):
        build_set(str(tmp_path / "file" / "x"), files)


@pytest.mark.parametrize("damage", ["change", "cut", "remove", "forget"])
def test_damage_is_named(files, tmp_path, damage):
    where = build_set(str(tmp_path), {"train": files["test"]})
    (shard,) = where.glob("apps_plus-*")
    data = shard.read_bytes()
    if damage == "change":
        shard.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif damage == "cut":
        shard.write_bytes(data[:-1])
    elif damage == "remove":
        shard.unlink()
    else:
        (where / "metadata.json").write_text('{"sha256": 3}')
    with pytest.raises(DataError, match=r"build it again with `stepcoder data build`"):
        built_set.open_split(str(where), "train")


def test_what_is_left_out_and_bad_rows_are_counted(files, problems, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{{}}\n{Path(files['train']).read_text()}")
    where = build_set(
        str(tmp_path), {"train": str(path)}, leave_out={"train": {"m", "code", "other"}}
    )
    assert list(built_set.open_split(str(where), "train")) == problems[:-2]
    about = built_set.read_metadata(str(where))["sources"]["train"]
    assert about["left_out"] == 2
    assert about["bad_rows"] == ["line 1: field mode: expected str, but it is missing"]
    with pytest.raises(DataError, match=r"rows.jsonl: line 1: field mode"):
        build_set(str(tmp_path / "strict"), {"train": str(path)}, strict=True)
    everything = {problem.id for problem in problems}
    with pytest.raises(DataError, match=r"train: .* has no problem to store"):
        build_set(
            str(tmp_path / "none"), {"train": str(path)}, leave_out={"train": everything}
        )
    assert not list((tmp_path / "none").rglob("dataset_info.json"))


def test_text_that_utf8_cannot_say(tmp_path):
    path = tmp_path / "half.jsonl"
    own.write([dataclasses.replace(MAIN, statement="a\ud800")], path)
    with pytest.raises(DataError, match=r"problem 'm': field statement: half a character"):
        build_set(str(tmp_path), {"train": str(path)})


TFDS_BUILD = """
import sys
import simple_parsing
from tensorflow_datasets.scripts.cli import build
parser = simple_parsing.ArgumentParser()
parser.add_arguments(build.Args, dest="args")
parser.parse_args(sys.argv[1:]).args.execute()
assert "tensorflow" not in sys.modules
"""


def test_tfds_build_makes_the_same_set_without_tensorflow(files, built, tmp_path):
    """The shell's `tfds` imports TensorFlow for another verb; this is its `build`."""
    manual = tmp_path / "manual"
    manual.mkdir()
    for name, path in files.items():
        (manual / f"{name}.jsonl").write_bytes(Path(path).read_bytes())
    script = AppsPlus.code_path
    words = [str(script), "--manual_dir", str(manual), "--data_dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", TFDS_BUILD, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    made = tmp_path / "apps_plus" / "1.0.0"
    for split in files:
        there, here = f"{made}:{split}", f"{built}:{split}"
        assert read_any(there, strict=True) == read_any(here, strict=True)
    metadata = [built_set.read_metadata(str(folder)) for folder in (made, built)]
    assert metadata[0]["sources"] == metadata[1]["sources"]


def test_nothing_of_it_loads_tensorflow():
    code = (
        "import sys; from stepcoder_jax.data.formats import built_set; "
        "from stepcoder_jax.data.building import apps_plus_builder; "
        "assert 'tensorflow_datasets' in sys.modules; "
        "print({'tensorflow', 'jax'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_files_of_the_manual_folder(tmp_path):
    with pytest.raises(DataError, match=r"expected train, validation or test with \.json"):
        find_files(tmp_path)
    (tmp_path / "train.json").write_text("[]")
    (tmp_path / "test").mkdir()
    assert find_files(tmp_path) == {
        "train": str(tmp_path / "train.json"),
        "test": str(tmp_path / "test"),
    }
    (tmp_path / "train.jsonl.gz").write_text("")
    with pytest.raises(DataError, match=r"train.json and train.jsonl.gz are both train"):
        find_files(tmp_path)


def test_the_genuine_file_is_built_and_read(tmp_path):
    path = str(need_data("apps_plus/problems.json"))
    where = build_set(str(tmp_path), {"train": path})
    assert read_any(f"{where}:train", strict=True)[0] == read_any(path, strict=True)[0]


def test_cpu_limits_of_a_split_are_measured_once_and_kept_beside_it(tmp_path, monkeypatch):
    problems = benchmark.generate("train", 2, (2, 2, 2))
    own.write(problems, tmp_path / "train.jsonl")
    where = build_set(str(tmp_path), {"train": str(tmp_path / "train.jsonl")})
    config = Config()
    config.data.path = f"{where}:train"
    read = sources.load_problems(config.data, "train")
    limited = sources.limit_cpu(read, config, "train", kept=None)
    assert [problem.cpu_seconds for problem in limited] == [1.0] * 6
    side = where.parent / "1.0.0:train.limits.json"
    assert list(json.loads(side.read_text())) == [digest(str(where))]
    monkeypatch.setattr(
        sources, "_measure", lambda missing, _: {} if not missing else 1 / 0
    )
    assert sources.limit_cpu(read, config, "train", kept=None) == limited
