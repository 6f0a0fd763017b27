"""The config: the paper's values are the defaults, and bad values name their field."""

import copy
import dataclasses
import functools
import json
import pickle
import typing

import pytest

from stepcoder_jax import config as c
from stepcoder_jax.cli.experiment import parse_config
from stepcoder_jax.config import PATHS, Config, ConfigError
from stepcoder_jax.config.paths import SHIPPED
from stepcoder_jax.config.ranges import fields_of
from tests.run_kit import HERE


def test_the_defaults_are_the_papers():
    """arXiv:2402.01391, section 4.2 and equation 3."""
    config = Config()
    assert config.sampling.rollouts_per_problem == 16
    assert config.sampling.max_completion_length == 1024
    assert (config.sampling.temperature, config.sampling.top_p) == (0.8, 0.9)
    assert config.ppo.actor.learning_rate == 5e-7
    assert config.ppo.critic.learning_rate == 1.5e-6
    assert (config.ppo.kl_coef, config.ppo.gae_lambda, config.ppo.gamma) == (0.05, 0.95, 1)
    assert config.sft.epochs == 3 and config.sft.learning_rate == 2e-5
    assert config.sft.warmup_fraction == 0.1
    reward = config.reward
    assert (reward.passed, reward.wrong, reward.runtime, reward.compile) == (
        1.0,
        -0.3,
        -0.6,
        -1.0,
    )
    assert config.cccs.enabled and config.fgo.mask == "executed"
    assert config.cccs.full_fraction == 0 and not config.ppo.whiten_advantages


# A value that cannot work for each rule.
BAD = {
    "model.num_kv_heads": 3,
    "model.rope_factor": 0.0,
    "model.sliding_window": 8,  # of a llama
    "model.attention": "cudnn",  # in float32
    "sampling.problems_per_step": 0,
    "sampling.rollouts_per_problem": 0,
    "sampling.temperature": 0.0,
    "sampling.top_p": 1.5,
    "sampling.chunk": 0,
    "sampling.slots": -1,
    "sampling.top_k": -1,
    "sampling.min_p": 1.0,
    "model.unroll": 3,
    "ppo.num_epochs": 0,
    "ppo.num_minibatches": 7,
    "ppo.num_micro_batches": 7,
    "ppo.clip_eps": 1.0,
    "ppo.gamma": 1.1,
    "ppo.gae_lambda": -0.1,
    "grpo.clip_low": 1.0,
    "grpo.clip_high": 0.0,
    "grpo.kl_coef": -0.1,
    "cccs.alpha": 0.0,
    "cccs.threshold": 1.0,
    "cccs.full_fraction": 2.0,
    "cccs.demote": 0.5,  # the threshold
    "reward.terms": ("stepcoder=nan",),
    "execution.url": "localhost:8080",
    "run.total_steps": 0,
    "run.save_every": 0,
    "data.pool_size": -1,
    "evaluation.batch_size": 0,
    "sft.batch_size": 0,
    "sft.epochs": 0.0,
    "sft.packing": -1,
    "sft.per_problem": -1,
    "sft.per_wrong": -1,
    "sft.blank_wrong": 0.1,  # without records
    "sft.control": "first",
    "prompt.max_prompt_length": 10**6,
}


def working() -> Config:
    config = Config()
    config.model.max_positions = 4096
    config.execution.backend, config.execution.url = "http", "http://localhost:8080"
    config.validate()
    return config


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_names_its_field(name):
    config = working()
    section, field = name.split(".")
    setattr(getattr(config, section), field, BAD[name])
    with pytest.raises(ConfigError) as error:
        config.validate()
    message = str(error.value)
    assert message.startswith(f"{name}: expected ") and "\n" not in message
    assert repr(BAD[name]) in message and f"--{name}" in message


@pytest.mark.parametrize(
    "terms",
    [(), ("",), ("=1",), ("length=",), ("length=x",), ("length=inf",), ("length=-2e6",)],
)
def test_a_term_is_a_name_with_a_finite_weight(terms):
    config = working()
    config.reward.terms = terms
    with pytest.raises(ConfigError, match=r"^reward.terms: expected .*NAME=WEIGHT"):
        config.validate()


def test_a_file_of_a_term_means_the_same_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = working()
    config.reward.terms = ("stepcoder", "length=-0.1", "own/r.py:f=0.5", "/x/r.py:g")
    assert config.to_dict()["reward"]["terms"] == [
        *("stepcoder", "length=-0.1", f"{tmp_path}/own/r.py:f=0.5", "/x/r.py:g")
    ]


@pytest.mark.parametrize("prefix", ["random", "half", "adaptive"])
def test_only_the_papers_stages_have_a_way_back(prefix):
    config = working()
    config.cccs.demote = 0.1
    config.validate()
    config.cccs.prefix = prefix
    with pytest.raises(ConfigError, match=rf"^cccs.demote: .* 0 with .*={prefix}.* --cccs"):
        config.validate()
    config.cccs.demote = 0.0
    config.validate()


def answering() -> Config:
    """A working config of a run that answers wrong programs."""
    config = working()
    config.data.contexts, config.prompt.variant = ("records.jsonl",), "explain"
    config.cccs.enabled, config.execution.tests = False, "run_all"
    config.ppo.scale_rewards = False
    config.validate()
    return config


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("cccs.enabled", True, "expected False, since data.contexts are answered whole"),
        ("execution.tests", "early_exit", "expected run_all.* counts the tests that pass"),
        ("reward.terms", ("length=1",), "expected stepcoder alone, since data.contexts"),
        ("ppo.scale_rewards", True, "expected False, since an answer's two rewards"),
    ],
)
def test_a_context_needs_what_its_rewards_need(name, value, why):
    config, (section, field) = answering(), name.split(".")
    setattr(getattr(config, section), field, value)
    with pytest.raises(ConfigError, match=f"^{name}: {why}"):
        config.validate()


def test_one_reward_may_be_scaled_and_grpo_scales_none():
    for section, field, value in (
        ("prompt", "variant", "direct"),
        ("reward", "explanation", "none"),
        ("reward", "one_scalar", True),
    ):
        config = answering()
        config.ppo.scale_rewards = True
        setattr(getattr(config, section), field, value)
        config.validate()
    config = answering()
    config.ppo.scale_rewards, config.algorithm = True, "grpo"
    config.validate()
    config.ppo.coupling, config.reward.one_scalar = "hard_split", True
    with pytest.raises(
        ConfigError, match=r"^ppo.coupling: expected printed with reward.one"
    ):
        config.validate()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt.variant", "explain"),
        ("reward.encoder", "folder"),
        ("reward.one_scalar", True),
        ("ppo.coupling", "hard_split"),
    ],
)
def test_what_nobody_would_read_is_refused(name, value):
    config, (section, field) = working(), name.split(".")
    setattr(getattr(config, section), field, value)
    with pytest.raises(ConfigError, match=rf"^{name}: expected .* since .* data.contexts"):
        config.validate()


def test_a_value_of_a_whole_answer_discounts_nothing():
    config = working()
    config.ppo.value_unit = "answer"
    config.validate()
    config.ppo.gamma = 0.99
    with pytest.raises(ConfigError, match=r"^ppo.gamma: expected 1 .*answer.*got 0.99"):
        config.validate()


def test_configs_survive_json():
    config = working()
    config.ppo.widths = (64, 128)
    config.ppo.critic.eps = 1e-9
    tree = json.loads(json.dumps(dataclasses.asdict(config)))
    assert Config.from_dict(tree) == config


def test_batch_size():
    config = Config()
    config.sampling.problems_per_step, config.sampling.rollouts_per_problem = 3, 5
    assert config.batch_size == 15


def test_an_unknown_attribute_is_refused_with_the_nearest_name():
    config = Config()
    with pytest.raises(ConfigError, match=r"RunConfig has no field 'total_step'; did you "):
        config.run.total_step = 5
    with pytest.raises(ConfigError, match=r"did you mean learning_rate\?"):
        config.ppo.actor.learningrate = 1e-3
    with pytest.raises(ConfigError, match=r"Config has no field 'batch_size'"):
        config.batch_size = 5
    with pytest.raises(
        ConfigError, match=r"CCCSConfig has no field 'zzz'; it has enabled,"
    ):
        config.cccs.zzz = 1
    with pytest.raises(ConfigError, match=r"did you mean total_steps\?"):
        c.RunConfig(total_step=5)
    assert config == Config()


@pytest.mark.parametrize("value", [5, "x", c.SFTConfig(), {}])
def test_a_section_takes_only_its_own_kind(value):
    config = Config()
    with pytest.raises(ConfigError, match=r"Config.run: expected a RunConfig, got "):
        config.run = value
    with pytest.raises(ConfigError, match=r"PPOConfig.actor: expected a OptimizerConfig"):
        config.ppo.actor = value
    with pytest.raises(ConfigError, match=r"expected a RunConfig"):
        Config(run=value)


def test_sections_copy_pickle_and_replace_as_dataclasses_do():
    config = working()
    config.run.total_steps = 7
    for twin in (
        copy.deepcopy(config),
        pickle.loads(pickle.dumps(config)),
        dataclasses.replace(config),
    ):
        assert twin == config
    assert dataclasses.replace(config.run, seed=3) == c.RunConfig(total_steps=7, seed=3)


def texts_of(kind: type, prefix: str = "") -> dict[str, typing.Any]:
    """Dotted name -> default of the fields that hold free text."""
    found: dict[str, typing.Any] = {}
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            found |= texts_of(hints[field.name], f"{prefix}{field.name}.")
        elif hints[field.name] in (str, tuple[str, ...]):
            found[prefix + field.name] = hints[field.name]
    return found


def test_a_url_is_refused_in_every_field_that_holds_a_path():
    texts = texts_of(Config)
    assert set(PATHS) == texts.keys() - {
        "prompt.fence",
        "execution.url",
        "data.difficulties",
    }
    for name in PATHS:
        config = working()
        section, field = name.split(".")
        url = "gs://bucket/run"
        value = url if texts[name] is str else ("samples.jsonl", url)
        setattr(getattr(config, section), field, value)
        with pytest.raises(ConfigError, match=rf"{name}: expected a path .* no URL, got "):
            config.validate()


def numbers():
    """The names of all fields that hold numbers."""
    kinds = {int, float, tuple[int, ...]}
    return [x.name for x in fields_of(Config()) if x.kind in kinds]


def put(config, name, value):
    *sections, field = name.split(".")
    setattr(functools.reduce(getattr, sections, config), field, value)


@pytest.mark.parametrize("name", numbers())
def test_every_number_has_a_range_that_is_held(name):
    """One that is not finite, below its range, or no number is refused by name."""
    *sections, field = name.split(".")
    section = functools.reduce(getattr, sections, Config())
    assert field in section.ranges, f"give it a range in {type(section).__name__}"
    is_list = isinstance(getattr(section, field), tuple)
    low = section.ranges[field].low
    below = (low - 1,) if low > -float("inf") else ()
    for bad in (float("nan"), float("inf"), -float("inf"), "3", True, None, *below):
        config = working()
        put(config, name, (bad,) if is_list else bad)
        with pytest.raises(ConfigError, match=rf"^{name}: expected ") as error:
            config.validate()
        assert "\n" not in str(error.value)


def test_every_choice_is_held():
    """An experiment sets fields without the checks of the command line."""
    for field in fields_of(Config()):
        if typing.get_origin(field.kind) is typing.Literal:
            config = working()
            put(config, field.name, "misspelt")
            with pytest.raises(ConfigError, match=rf"^{field.name}: expected one of "):
                config.validate()
    config = working()
    config.cccs.enabled = "no"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"^cccs.enabled: expected a value of type bool"):
        config.validate()


def test_a_files_paths_mean_the_same_from_another_folder(tmp_path, monkeypatch):
    config = Config()
    config.data.path, config.data.test = "mine.json", "sets/x:test"
    config.model.checkpoint, config.run.folder = "builtin", str(tmp_path / "run")
    config.sft.samples, config.execution.python = ("a.jsonl",), "python3.12"
    monkeypatch.chdir(tmp_path)
    tree = json.loads(json.dumps(config.to_dict()))
    monkeypatch.chdir("/")
    read = Config.from_dict(tree)
    assert read.data.path == str(tmp_path / "mine.json")
    assert read.data.test == str(tmp_path / "sets/x:test") and read.data.validation == ""
    assert read.sft.samples == (str(tmp_path / "a.jsonl"),)
    assert (read.model.checkpoint, read.execution.python) == ("builtin", "python3.12")
    assert json.loads(json.dumps(read.to_dict())) == tree  # nothing moves twice
    assert config.data.path == "mine.json"


def test_the_context_length_is_the_checkpoints(tmp_path):
    shape = {"model_type": "llama", "vocab_size": 640, "hidden_size": 8}
    shape |= {"intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    shape |= {"max_position_embeddings": 5000, "rms_norm_eps": 1e-6}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    argv = [HERE, "--model.checkpoint", str(tmp_path)]
    config = parse_config("train", [*argv, "--prompt.max_prompt_length", "4000"])
    assert config.model.max_positions == 5000
    with pytest.raises(ConfigError, match=r"at most model\.max_positions=5000"):
        parse_config("train", [*argv, "--prompt.max_prompt_length", "5000"])


@pytest.mark.parametrize("name", ["validation", "test"])
@pytest.mark.parametrize("tier", SHIPPED)
def test_a_tier_takes_no_files_of_other_splits(tier, name):
    config = Config()
    config.data.path = tier
    setattr(config.data, name, "problems.json")
    with pytest.raises(ConfigError, match=f"data.{name}: expected none with data.path"):
        config.validate()
