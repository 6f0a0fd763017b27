"""A model folder is sealed: whatever is damaged in it is named before it is used."""

import shutil
from pathlib import Path

import pytest

from stepcoder_jax.config import ConfigError, ModelConfig, SamplingConfig
from stepcoder_jax.runs.disk import model_folder, seals, sources
from stepcoder_jax.runs.disk.seals import DamagedError
from stepcoder_jax.runs.disk.sft_folder import SFTFolder

SHIPPED = ModelConfig(checkpoint="builtin")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The shipped model as a run keeps its reference."""
    folder = tmp_path_factory.mktemp("model") / "whole"
    folder.mkdir()
    tokenizer = sources.load_tokenizer(SHIPPED)
    sources.save_actor(SHIPPED, 0, folder)
    ids = sources.eos_ids(SHIPPED, tokenizer)
    model_folder.write_beside(folder, SamplingConfig(4, 4, 8), ids, tokenizer)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "model"))


def use(folder):
    """Whatever a command does with a model folder."""
    named = ModelConfig(checkpoint=str(folder))
    sources.load_tokenizer(named)
    sources.load_reference(folder)


def test_a_folder_as_it_was_written(copy):
    (copy / "README.md").write_text("a file of the user's own")
    use(copy)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.999])
def test_one_flipped_bit_anywhere_is_named(copy, place):
    files = sorted(path for path in copy.iterdir() if path.name != seals.SEAL)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {x.name for x in files}
    for path in files:
        kept = path.read_bytes()
        at = int(place * len(kept))
        for bad in (kept[:at], kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1 :]):
            path.write_bytes(bad)
            with pytest.raises(DamagedError, match=f"{path.name} is not what was written"):
                model_folder.check_all(copy)
        path.write_bytes(kept)
    model_folder.check_all(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_nothing_damaged_is_loaded(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[-40] ^= 2  # of a weight, or of a name of a token: still readable
    (copy / name).write_bytes(data)
    with pytest.raises(DamagedError, match=f"{name} is not what was written; put the file"):
        use(copy)
    with pytest.raises(DamagedError, match=name):
        sources.save_actor(ModelConfig(checkpoint=str(copy)), 0, copy.parent / "reference")


def test_an_sft_run_passes_over_a_damaged_model_and_says_so(whole, tmp_path, capsys):
    folder = SFTFolder(tmp_path)
    for place in ("best/4", "6", "2"):
        shutil.copytree(whole, folder.checkpoints / place)
    assert folder.find_model(None) == (folder.best / "4", "update 4 (best)")
    (folder.best / "4" / "model.safetensors").write_bytes(b"")
    (folder.checkpoints / "6" / "tokenizer.json").unlink()
    assert folder.find_model(None) == (folder.checkpoints / "2", "update 2")
    said = capsys.readouterr().err
    assert f"{folder.best / '4'} is damaged: model.safetensors is not what" in said
    assert f"{folder.checkpoints / '6'} is damaged: tokenizer.json is missing" in said
    (folder.checkpoints / "2" / "config.json").write_text("{}")
    with pytest.raises(DamagedError, match="no other model was kept"):
        folder.find_model(None)
    with pytest.raises(ConfigError, match="has no step 5"):
        folder.find_model(5)
