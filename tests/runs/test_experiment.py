"""Whatever is wrong with an experiment's file is one line with file and line."""

import textwrap

import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.config import ConfigError
from stepcoder_jax.runs.experiment import load_experiment

GOOD = """
    from stepcoder_jax import config as c
    def get_config(arg=""):
        return c.Config(run=c.RunConfig(seed=len(arg)))
"""
# A file's text -> what the one line says behind the file's name.
BROKEN = {
    "syntax": ("import os\nx = = 1\n", ", line 2: SyntaxError: invalid syntax"),
    "indent": ("def f():\nx = 1\n", ", line 2: IndentationError: expected an indented"),
    "null": ("x = 1\0\n", "SyntaxError: source code"),
    "import": ("\nimport nowhere_at_all\n", ", line 2: ModuleNotFoundError: No module"),
    "import time": ("x = 1\ny = x / 0\n", ", line 2: ZeroDivisionError: division by"),
    "exit": ("import sys\nsys.exit(3)\n", ", line 2: it ended the program (SystemExit 3)"),
    "nothing": ("", ' has no get_config(arg=""); add one'),
    "no arg": ("def get_config(): pass\n", ": TypeError: get_config() takes 0 positional"),
    "no function": ("get_config = 3\n", ": TypeError: 'int' object is not callable"),
    "inside": (
        'def get_config(arg=""):\n    return {}["a"]\n',
        ", line 2: KeyError: 'a'",
    ),
    "several lines": (
        'def get_config(arg=""):\n    raise ValueError("a\\nb")\n',
        ", line 2: ValueError: a b",
    ),
    "misspelt": (
        'from stepcoder_jax import config as c\ndef get_config(arg=""):\n'
        "    config = c.Config()\n    config.run.total_step = 5\n    return config\n",
        ", line 4: RunConfig has no field 'total_step'; did you mean total_steps?",
    ),
    "misspelt keyword": (
        'from stepcoder_jax import config as c\ndef get_config(arg=""):\n'
        "    return c.Config(run=c.RunConfig(total_step=5))\n",
        ", line 3: RunConfig has no field 'total_step'; did you mean total_steps?",
    ),
    "misread": (
        'from stepcoder_jax import config as c\ndef get_config(arg=""):\n'
        "    return c.Config().run.total_step\n",
        ", line 3: AttributeError: 'RunConfig' object has no attribute 'total_step'",
    ),
}


def write(path, text):
    path.write_text(textwrap.dedent(text))
    return str(path)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_with_its_place(tmp_path, name):
    text, said = BROKEN[name]
    file = write(tmp_path / "mine.py", text)
    with pytest.raises(ConfigError) as error:
        load_experiment(file)
    message = str(error.value)
    assert message.startswith(f"EXPERIMENT: {file}") and "\n" not in message
    assert said in message, message


def test_the_command_line_says_it_too(tmp_path, capsys):
    file = write(tmp_path / "mine.py", BROKEN["misspelt"][0])
    for command in ("train", "sft"):
        assert main([command, file]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"stepcoder {command}: EXPERIMENT: {file}{BROKEN['misspelt'][1]}"


def test_an_error_in_the_parent_names_the_parent(tmp_path):
    write(tmp_path / "parent_of_mine.py", "a = 1\n\nb = undefined\n")
    child = write(tmp_path / "mine.py", "import parent_of_mine\n")
    with pytest.raises(ConfigError, match=r"parent_of_mine.py, line 3: NameError: name"):
        load_experiment(child)


def test_a_parent_may_be_imported_late(tmp_path):
    write(tmp_path / "late_parent_of_mine.py", GOOD)
    child = """
        def get_config(arg=""):
            import late_parent_of_mine
            return late_parent_of_mine.get_config(arg)
    """
    assert load_experiment(write(tmp_path / "mine.py", child) + ":abc").run.seed == 3


@pytest.mark.parametrize("command", ["train", "sft"])
def test_a_misspelt_tier_is_told_before_what_follows_from_it(command, tmp_path, capsys):
    flags = ["--data.path", "gaurded", "--evaluation.test_problems", "500"]
    folder = ["--run.folder", str(tmp_path / "run")]
    assert main([command, "experiments/quickstart.py", *flags, *folder]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    said = "data.path: gaurded does not exist; did you mean guarded? expected"
    assert line.startswith(f"stepcoder {command}: {said}")
    built = tmp_path / "set"
    built.mkdir()  # a set that is there, and has no file of test problems
    flags = ["--data.path", f"{built}:train", "--evaluation.test_problems", "500"]
    assert main([command, "experiments/quickstart.py", *flags, *folder]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"stepcoder {command}: evaluation.test_problems: expected 0")


@pytest.mark.parametrize(
    "name", ["ablation.py:sft", "ablation.py:raft@1e-3", "paper.py:sft"]
)
def test_an_arm_of_text_is_for_sft_alone(name):
    file = f"experiments/{name}"
    with pytest.raises(ConfigError) as error:
        load_experiment(file, "train")
    arm = name.partition(":")[2].partition("@")[0]
    said = f"EXPERIMENT: {arm} learns text, not by rewards; use `stepcoder sft {file}`"
    assert str(error.value) == said
    assert load_experiment(file, "sft") == load_experiment(file)
    load_experiment(f"{file.partition(':')[0]}:ppo", "train")


def test_what_is_no_experiment(tmp_path):
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ConfigError, match=r"folder.py', which is a folder"):
        load_experiment(str(tmp_path / "folder.py"))
    with pytest.raises(ConfigError, match=r"must end in .py"):
        load_experiment(write(tmp_path / "mine.txt", GOOD))
    file = write(tmp_path / "mine.py", 'def get_config(arg=""):\n    return {}\n')
    with pytest.raises(ConfigError, match=r"must return a Config, got dict"):
        load_experiment(file)
    with pytest.raises(KeyboardInterrupt):
        load_experiment(write(tmp_path / "mine.py", "raise KeyboardInterrupt"))
