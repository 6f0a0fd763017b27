"""What is refused before anything is loaded: files and folders of the wrong kind."""

import errno
import json
import shutil

import pytest

from stepcoder_jax import __main__
from stepcoder_jax.__main__ import main
from stepcoder_jax.config import ConfigError
from stepcoder_jax.models import hf_config, hf_folder
from stepcoder_jax.models.hf_config import WeightsError
from stepcoder_jax.runs.disk import preflight
from tests.run_kit import get_config


@pytest.fixture
def model(tmp_path):
    """A copy of the shipped model's folder."""
    folder = tmp_path / "model"
    shutil.copytree(hf_config.WARM_STARTS["builtin"], folder)
    return folder


def refused(**fields):
    """How a config with these values is refused; keys have _ for the dot."""
    config = get_config()
    config.run.folder = "new"
    for name, value in fields.items():
        section, _, field = name.partition("_")
        setattr(getattr(config, section), field, value)
    with pytest.raises((ConfigError, WeightsError)) as error:
        preflight.check_config(config)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_shipped_model_and_a_copy_pass(tmp_path, model):
    config = get_config()
    config.run.folder = str(tmp_path / "a" / "b")
    preflight.check_config(config)
    config.model.checkpoint = str(model)
    preflight.check_config(config)
    assert not (tmp_path / "a").exists()


def test_files_and_folders_of_the_wrong_kind(tmp_path, model):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("x")
    folder.mkdir()
    assert "is a file; expected a folder" in refused(model_checkpoint=str(file))
    assert "does not exist" in refused(model_checkpoint="deepseek-ai/deepseek-coder")
    assert "is a file; expected a folder" in refused(model_tokenizer=str(file))
    assert "config.json" in refused(model_checkpoint=str(folder))
    assert "is a folder; expected a file" in refused(sft_samples=(str(folder),))
    assert "does not exist; expected a file" in refused(sft_samples=("nowhere",))
    assert "sft.records: nowhere does not exist" in refused(sft_records=("nowhere",))
    assert "is a file, no folder" in refused(run_folder=str(file))
    assert "is a file, no folder" in refused(run_folder=str(file / "x" / "y"))
    assert "is not empty; add --run.resume" in refused(run_folder=str(model))
    assert "data.path: nowhere does not exist; exp" in refused(data_path="nowhere")
    assert "gaurded does not exist; did you mean guarded? " in refused(data_path="gaurded")
    assert "did you mean builtin? exp" in refused(model_checkpoint="bultin")
    assert "did you mean guarded? exp" in refused(model_tokenizer="guarde")
    said = refused(data_path=str(file), data_test="nowhere:train")
    assert said.startswith("data.test: nowhere:train does not exist")
    assert "no program that can be run" in refused(execution_python=str(file))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", "{", "not a JSON object"),
        ("config.json", "[]", "model_type None is not supported"),
        ("config.json", "3", "not a JSON object"),
        ("config.json", None, "config.json"),
        ("tokenizer.json", "{", "is not JSON"),
        ("tokenizer.json", "[]", "is no fast tokenizer"),
        ("tokenizer.json", None, "no tokenizer.json in"),
        ("model.safetensors", None, "model.safetensors: no such file"),
    ],
)
def test_a_model_folder_with_a_broken_file(model, name, text, said):
    path = model / name
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert said in refused(model_checkpoint=str(model))


def test_pickled_weights_get_the_command_that_converts_them(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    said = refused(model_checkpoint=str(model))
    assert said.startswith(f"{model}: expected model.safetensors, got pytorch_model.bin")
    assert "AutoModelForCausalLM" in said and str(model) in said
    (model / "adapter_config.json").write_text("{}")
    assert "merge them" in refused(model_checkpoint=str(model))


def test_the_command_converts_them(model):
    """The very command that the line ends with makes a folder that is read."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    before = transformers.AutoModelForCausalLM.from_pretrained(model)
    torch.save(before.state_dict(), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    said = refused(model_checkpoint=str(model))
    command = said.partition("convert it with python -c ")[2]
    exec(json.loads(command))
    (path,) = hf_folder.find_weights(model)
    assert path.name == "model.safetensors"
    config = get_config()
    config.model.checkpoint, config.run.folder = str(model), "new"
    preflight.check_config(config)


def test_a_slow_tokenizer_gets_the_command_too(model):
    (model / "tokenizer.json").rename(model / "tokenizer.model")
    assert "AutoTokenizer" in refused(model_tokenizer=str(model))


def test_a_shard_that_is_missing_is_named(model):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / "model.safetensors").rename(model / "model-1.safetensors")
    assert "model-2.safetensors: no such file" in refused(model_checkpoint=str(model))
    (model / "model.safetensors.index.json").write_text("[]")
    assert "not an index" in refused(model_checkpoint=str(model))


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight.os, "access", lambda path, mode: False)
    said = refused(run_folder=str(tmp_path / "run"))
    assert f"({tmp_path} may not be written to); choose another --run.folder" in said


@pytest.mark.parametrize(
    "code", [errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.ENOSPC, errno.EISDIR]
)
def test_what_the_disk_says_is_one_line(capsys, monkeypatch, code):
    def fail(argv):
        raise OSError(code, "as the system says", "a/file")

    monkeypatch.setitem(__main__.COMMANDS, "judge", fail)
    assert main(["judge", "x"]) == 2
    assert capsys.readouterr().err == "stepcoder judge: a/file: as the system says\n"


def test_other_faults_keep_their_traceback(monkeypatch):
    def fail(argv):
        raise OSError(errno.EIO, "the disk is broken", "a/file")

    monkeypatch.setitem(__main__.COMMANDS, "judge", fail)
    with pytest.raises(OSError, match="the disk is broken"):
        main(["judge", "x"])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("evaluate run", "run holds no run (no readable config.json)"),
        (
            "evaluate gaurded",
            "gaurded holds no run (no readable config.json); did you mean",
        ),
        ("export run --out new", "run holds no run (no readable config.json)"),
        ("export file --out new", "file holds no run"),
        ("data build file --train set", "FOLDER: file is a file; expected a folder"),
        ("data build new --train nowhere", "--train: nowhere does not exist; expected"),
        ("data stats set --tokenizer file", "--tokenizer: file is a file; expected a"),
        ("data stats set --tokenizer run", "--tokenizer: no tokenizer.json in run"),
    ],
)
def test_what_other_commands_refuse_at_once(capsys, tmp_path, monkeypatch, command, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "set").write_text("[{}]")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("[1]")  # JSON, but no object
    assert main(command.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert said in captured.err
    assert not (tmp_path / "new").exists()
