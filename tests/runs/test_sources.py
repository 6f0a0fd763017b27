"""Models and tokenizers that do not go together, or not with this machine."""

import json
import shutil

import jax
import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.config import ConfigError, DataConfig, ModelConfig
from stepcoder_jax.models import hf_config, policy, weights
from stepcoder_jax.runs.disk import sources
from tests import kit


def test_the_shape_comes_from_the_checkpoint():
    model = sources.resolve_model(ModelConfig(checkpoint="builtin", dtype="bfloat16"), 640)
    assert (model.vocab_size, model.num_layers, model.dtype) == (640, 4, "bfloat16")
    assert sources.resolve_model(ModelConfig(), 65).vocab_size == 128


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused():
    with pytest.raises(ConfigError, match=r"has 641 tokens, .*warm_start knows only 640"):
        sources.resolve_model(ModelConfig(checkpoint="builtin"), 641)


@pytest.mark.parametrize(("kind", "device"), [("cudnn", "GPU"), ("splash", "TPU")])
def test_attention_of_another_machine_is_refused(kind, device):
    config = ModelConfig(attention=kind, dtype="bfloat16")
    with pytest.raises(ConfigError, match=f"{kind} needs a {device}, this process runs on"):
        sources.resolve_model(config, 640)


def test_a_tokenizer_without_a_fast_file_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"sentencepiece")
    with pytest.raises(
        hf_config.WeightsError, match=r"no tokenizer.json in .* tokenizer\.model with"
    ):
        sources.load_tokenizer(ModelConfig(tokenizer=str(tmp_path)))


def test_a_slow_tokenizer_is_refused(tmp_path):
    """`tokenizer_class` may name a tokenizer of Python alone, whatever else is there."""
    shutil.copytree(hf_config.WARM_STARTS["builtin"], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tokenizer_config.json"
    said = json.loads(path.read_text()) | {"tokenizer_class": "ByT5Tokenizer"}
    path.write_text(json.dumps(said))
    with pytest.raises(ConfigError, match=r"expected a fast tokenizer .* slow ByT5Tok"):
        sources.load_tokenizer(ModelConfig(tokenizer=str(tmp_path)))


@pytest.fixture
def small_context(tmp_path):
    """A checkpoint that fits the shipped tokenizer and has 64 positions."""
    shutil.copytree(hf_config.WARM_STARTS["builtin"], tmp_path / "model")
    config = kit.tiny_model(vocab_size=640)
    params = policy.init_params(config, jax.random.key(0))
    weights.save_checkpoint(tmp_path / "model", config, params, "bfloat16")
    return tmp_path / "model"


@pytest.mark.parametrize("command", ["train", "sft"])
def test_a_prompt_over_the_context_is_refused(small_context, tmp_path, command, capsys):
    run = tmp_path / "run"
    flags = ["--model.checkpoint", str(small_context), "--run.folder", str(run)]
    assert main([command, "tests/run_kit.py", *flags]) == 2
    error = capsys.readouterr().err
    assert "prompt.max_prompt_length: expected at most model.max_positions=64" in error
    assert error.count("\n") == 1
    assert not run.exists() or not any(run.iterdir())


def test_the_difficulties_that_are_missing_are_named():
    data = DataConfig(path="guarded", difficulties=("competition", "hrad", "interview"))
    with pytest.raises(ConfigError) as error:
        sources.load_pool(data, "validation")
    assert str(error.value) == (
        "data.difficulties: expected some of introductory, interview, competition, which "
        "guarded has, got 'hrad'"
    )


def test_a_tier_that_is_misspelt_where_a_file_may_stand():
    with pytest.raises(
        ConfigError, match=r"^gaurded does not exist; did you mean guarded\?"
    ):
        sources.load_problems(DataConfig(path="gaurded"), "train")
