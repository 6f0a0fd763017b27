"""CodeRL's returns and loss by hand, and whole runs of it with both heads."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.devices import digests
from stepcoder_jax.heads import folder
from stepcoder_jax.learning.returns import coderl
from stepcoder_jax.learning.scoring import Current
from stepcoder_jax.models import heads
from stepcoder_jax.pytrees import Feedback, RewardScale, Rollout
from stepcoder_jax.results.logger import read_metrics
from stepcoder_jax.runs.disk import sources
from tests.run_kit import check_names, metrics_of, rollouts_of, run_train, saved, start

# three tokens, two, none that is valid, and a written program of three
MASK = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]], bool)
EXECUTED = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]], bool)
REWARDS = np.array(
    [[0, -0.1, -0.3, 0], [0, 0, 1, 0], [0, 0, 0, 9], [0, 0, 0, 0]], np.float32
)
REWARDS[1] = [0, 1, 0, 0]
BASELINE = np.array([-0.6, -1.0, 0, 0], np.float32)
VALUES = np.array(
    [[0.5, 0.25, 1, 0], [0.5, 0.8, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], np.float32
)
# q (0.3 + T r_t), with T r_1 = 3 (-0.1); q (1 + 1)
RETURNS = [[0.15, 0.0, 0.3, 0], [1.0, 1.6, 0, 0], [0] * 4, [0] * 4]
WRITTEN = np.array([False, False, False, True])
LOGPROBS = np.array(
    [[-1, -2, -3, 7], [-4, -5, 7, 7], [7, 7, 7, 7], [-0.5, -1.5, -2.5, 7]], np.float32
)


def make_config(**fields):
    config = Config(algorithm="coderl")
    for name, value in fields.items():
        owner = config.coderl if hasattr(config.coderl, name) else config.ppo
        setattr(owner, name, value)
    return config


def begun(config, **more):
    zeros = jnp.zeros(MASK.shape)
    count = jnp.asarray(MASK.sum(axis=1))
    rollout = Rollout(
        jnp.zeros((4, 6)), count * 0 + 2, count + 2, MASK, zeros, zeros, count > 9
    )
    valid = jnp.array([True, True, False, True])
    given = {"baseline": BASELINE, "token_values": VALUES, "written": WRITTEN} | more
    feedback = Feedback(jnp.asarray(REWARDS), jnp.asarray(EXECUTED), valid, **given)
    scale = RewardScale(*jnp.zeros(3))
    return coderl.begin(config, scale, rollout, feedback)


def test_returns_by_hand():
    found = begun(make_config())
    np.testing.assert_allclose(found.experience.advantages, RETURNS, atol=1e-6)
    assert found.experience.loss_mask[0].tolist() == [True, False, True, False]
    # over the rows, and over the tokens, that were sampled and are valid
    assert found.metrics["coderl/baseline"] == pytest.approx(-0.8)
    assert found.metrics["coderl/token_value"] == pytest.approx(3.05 / 5)


def test_without_baseline_and_critic_a_reward_is_its_own_return():
    found = begun(make_config(), baseline=None, token_values=None, written=None)
    expected = [[-0.3, -0.6, -0.3, 0], [1, 1, 0, 0], [0] * 4, [0] * 4]
    np.testing.assert_allclose(found.experience.advantages, expected, atol=1e-6)
    assert found.metrics["coderl/baseline"] == 0
    assert found.metrics["coderl/token_value"] == 1


def test_a_located_error_is_that_of_the_released_rltf():
    """q_t ((R - 0.3 m_t) - R_base), with m_t 1 on the line: fine_grained_type 1 there."""
    line, tokens = np.array([0, 1, 1, 0, 0], bool), 5
    rewards = np.where(line, -0.3 / tokens, 0.0)  # reward.located_alpha = released
    rewards[-1] = -0.6
    q = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    found = coderl.token_returns(
        rewards[None], np.ones((1, 5), bool), np.array([-1.0]), q[None]
    )
    np.testing.assert_allclose(found[0], q * ((-0.6 - 0.3 * line) + 1), rtol=1e-6)


def loss_of(config, logprobs, written=WRITTEN):
    batch = begun(config, written=written).experience
    batch = batch._replace(old_logprobs=jnp.asarray(LOGPROBS))
    zeros = jnp.zeros(MASK.shape)
    current = Current(logprobs, zeros + 0.5, None, None)
    return coderl.loss(config, current, batch, coderl.divisors(config, batch))


def test_the_loss_by_hand():
    """Kept and sampled: 4 tokens, 1 x 0.15 + 3 x 0.3 + 4 + 5 x 1.6; written: 4.5 of 3."""
    sampled = (0.15 + 0.9 + 4.0 + 8.0) / 4
    config = make_config(supervised=2.0)
    total, logged = loss_of(config, jnp.asarray(LOGPROBS))
    assert total == pytest.approx(sampled + 2.0 * 4.5 / 3)
    sums = logged.sums
    assert sums["policy_loss"].total / sums["policy_loss"].count == pytest.approx(sampled)
    assert sums["ce_loss"].total / sums["ce_loss"].count == pytest.approx(1.5)
    assert logged.extremes["ratio_max"] == 1  # of sampled tokens alone
    # the entropy bonus is of the sampled ones, and a completion's tokens may divide it
    total, _ = loss_of(make_config(entropy_coef=0.1), jnp.asarray(LOGPROBS))
    assert total == pytest.approx(sampled - 0.05 + 1.5)
    total, _ = loss_of(make_config(normaliser="completion"), jnp.asarray(LOGPROBS))
    assert total == pytest.approx(sampled * 4 / 5 + 1.5)
    total, logged = loss_of(make_config(), jnp.asarray(LOGPROBS), written=None)
    assert "ce_loss" not in logged.sums


def test_the_gradient_is_the_return():
    config = make_config(supervised=0.5)
    found = jax.grad(lambda x: loss_of(config, x)[0])(jnp.asarray(LOGPROBS))
    kept = MASK & EXECUTED & np.array([[1], [1], [0], [0]], bool)
    expected = -np.where(kept, RETURNS, 0) / 4
    expected[3, :3] = -0.5 / 3
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("algorithm", "ppo", "coderl.critic", "x"), 'coderl.critic: expected "" with'),
        (("ppo.adaptive_kl_target", 1.0), "ppo.adaptive_kl_target: expected 0 with"),
        (("data.contexts", ("x",)), "algorithm: expected ppo or grpo with data.contexts"),
        (("reward.terms", ("rlcf",)), "reward.rlcf_discriminator: expected the folder"),
        (("reward.rlcf_discriminator", "x"), 'reward.rlcf_discriminator: expected "" wi'),
        (("coderl.supervised", -1.0), "coderl.supervised: expected at least 0, got -1.0"),
    ],
)
def test_a_config_that_cannot_work(change, why):
    config = Config(algorithm="coderl")
    config.model.max_positions = 2048
    config.validate()
    for name, value in zip(change[::2], change[1::2]):
        section, _, field = name.rpartition(".")
        setattr(getattr(config, section) if section else config, field, value)
    with pytest.raises(ConfigError, match=f"^{why}"):
        config.validate()


def test_rows_that_are_learnt():
    config = Config(algorithm="coderl")
    assert config.learnt_rows == 2 * config.batch_size
    config.coderl.supervised = 0.0
    assert config.learnt_rows == config.batch_size
    config.algorithm, config.coderl.supervised = "ppo", 1.0
    assert config.learnt_rows == config.batch_size


def save_heads(path):
    """A critic and a discriminator of the model that `run_kit` begins with."""
    start(path / "begun")
    reference = sources.load_reference(path / "begun" / "reference")
    size = reference["trunk"]["embed_tokens"]["embedding"].shape[1]
    for seed, kind in enumerate(("outcome", "pair")):
        head = heads.init_head(kind, size, jax.random.key(seed))
        noise = jax.random.normal(jax.random.key(9), head["outer"]["kernel"].shape)
        head["outer"]["kernel"] = 0.3 * noise
        (path / kind).mkdir()
        digest = digests.digest(reference)
        folder.save(path / kind, folder.Head(kind, "logits", head, digest, {}))


@pytest.mark.long
def test_a_run_goes_on_alike(tmp_path, capsys):
    """With both heads, baseline and written programs; whole, and in two parts."""
    save_heads(tmp_path)
    flags = [
        *("--algorithm", "coderl", "--coderl.critic", str(tmp_path / "outcome")),
        *("--reward.terms", "stepcoder", "rlcf=0.5", "--run.rollouts_every", "1"),
        *("--reward.rlcf_discriminator", str(tmp_path / "pair")),
        *("--evaluation.every", "0", "--evaluation.test_problems", "0"),
    ]
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert run_train(whole, *flags) == 0
    assert run_train(parted, *flags, "--run.total_steps", "2") == 0
    for path in (tmp_path / "outcome").iterdir():
        path.write_text("gone")  # a run has its own copy
    assert run_train(parted, *flags, "--run.resume", "yes") == 0
    check_names(whole)
    assert metrics_of(whole) == metrics_of(parted)
    assert rollouts_of(whole) == rollouts_of(parted)
    one, other = (saved(path, 4)[0] for path in (whole, parted))
    jax.tree.map(np.testing.assert_array_equal, one.actor, other.actor)
    for row in read_metrics(whole / "metrics.jsonl"):
        assert 0 < row["coderl/token_value"] < 1 and -1 <= row["coderl/baseline"] <= 1.5
        assert row["ce_loss"] > 0 and -0.5 <= row["reward/rlcf"] <= 0.5
    # the head of a run is not that of another model
    record = tmp_path / "pair" / "head.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"model": "0" * 64}))
    capsys.readouterr()
    assert run_train(tmp_path / "other", *flags[4:], "--algorithm", "ppo") == 2
    said = capsys.readouterr().err
    assert "reward.rlcf_discriminator: the head in" in said and said.count("\n") == 1
    assert not (tmp_path / "other").exists()
