"""Overlong shaping, importance weights, both KL controls and decay: by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.config import Config, ConfigError, OptimizerConfig
from stepcoder_jax.learning import controls, grpo, ppo, updates
from stepcoder_jax.learning.batching import ONE_DEVICE
from stepcoder_jax.learning.losses import MaskedSum
from stepcoder_jax.learning.metrics import step_metrics
from stepcoder_jax.learning.optimizers import rate_share
from stepcoder_jax.pytrees import Experience
from tests import kit


def test_overlong_punishment_by_hand():
    """L = 10, c = 4: free to 6, then -1/4 a token, -1 at the limit."""
    count = jnp.array([1, 6, 7, 9, 10])
    got = controls.overlong_penalty(count, 10, 4)
    np.testing.assert_allclose(got, [0, 0, -0.25, -0.75, -1])


def test_overlong_punishment_stands_on_the_last_token():
    config = kit.tiny_config()
    rollout, feedback = kit.rollout_batch()
    assert controls.shape_overlong(config, rollout, feedback) == (feedback, {})
    config.ppo.overlong_buffer = 4
    shaped, metrics = controls.shape_overlong(config, rollout, feedback)
    count = rollout.mask.sum(axis=1)
    expected = feedback.rewards.copy()
    expected[np.arange(16), count - 1] += np.clip((6 - count) / 4, -1, 0)
    np.testing.assert_allclose(shaped.rewards, expected, atol=1e-7)
    valid = feedback.valid
    np.testing.assert_allclose(metrics["overlong_share"], (count > 6)[valid].mean(), 1e-6)


def made(**arrays):
    """An experience of these arrays; a token of the first row is not executed."""
    mask = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]], bool)
    kept = mask & np.array([[1, 0, 1]] * 3, bool)
    return Experience(None, None, None, mask, kept, **arrays)


def test_importance_weights_by_hand():
    """The sampler kept half of the mass, and its own numbers were off by log 3."""
    rollout = kit.rollout_batch()[0]._replace(
        logprobs=np.log([[0.2, 0.2, 0.3], [0.1, 1, 1], [1, 1, 1]]).astype(np.float32),
        kept_mass=np.array([[0.5, 1.0, 1.0], [0.5, 0, 0], [0, 0, 0]], np.float32),
    )
    old = np.log([[0.2, 0.2, 0.9], [0.9, 1, 1], [1, 1, 1]]).astype(np.float32)
    mask = made().mask
    drawn = controls.sampler_logprobs(rollout, mask)
    np.testing.assert_allclose(np.exp(drawn), [[0.4, 0.2, 0.3], [0.2, 1, 1], [1, 1, 1]])
    batch = made(old_logprobs=old, sampler_logprobs=drawn)
    expected = np.array([[0.5, 1, 2], [2, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(controls.importance_weights(2.0, batch), expected, 1e-6)
    config, surrogate = kit.tiny_config(), jnp.full((3, 3), -3.0)
    assert controls.weigh(config, batch, surrogate) is surrogate
    assert controls.weight_metrics(config, batch) == {}
    config.ppo.tis_cap = 2.0
    weighed = controls.weigh(config, batch, surrogate)
    np.testing.assert_allclose(weighed, -3 * expected, 1e-6)
    metrics = controls.weight_metrics(config, batch)
    np.testing.assert_allclose(metrics["tis_weight"], (0.5 + 2 + 2) / 3, 1e-6)
    np.testing.assert_allclose(metrics["tis_capped"], 2 / 3, 1e-6)


@pytest.mark.parametrize(
    ("target", "expected"),
    [(0.5, 0.3 * (1 + 0.1 * 0.02)), (3.0, 0.3 * (1 - 0.2 * 0.02)), (0.1, 0.3 * 1.004)],
)
def test_the_kl_coefficient_follows_the_error_within_a_fifth(target, expected):
    """KL = (1.0 + 0.1) / 2 = 0.55 over two valid rows; n / horizon = 2 / 100."""
    config = kit.tiny_config()
    config.ppo.adaptive_kl_target, config.ppo.adaptive_kl_horizon = target, 100
    old = np.array([[0.5, 0.2, 0.3], [0.1, 9, 9], [9, 9, 9]], np.float32)
    batch = made(old_logprobs=old, ref_logprobs=np.zeros((3, 3), np.float32))
    coef = controls.next_kl_coef(config, jnp.float32(0.3), batch)
    np.testing.assert_allclose(coef, expected, rtol=1e-6)
    nothing = batch._replace(mask=batch.mask & False)
    assert controls.next_kl_coef(config, jnp.float32(0.3), nothing) == np.float32(0.3)


def test_what_lies_behind_too_large_a_step_is_neither_taken_nor_computed():
    """KL of minibatch i is i; with 1.5 x 2 the fifth is too far, and the sixth not seen."""
    kls = jnp.arange(7.0)

    def learn(current, batch):
        kl = MaskedSum(4 * kls[batch], jnp.float32(4))
        metrics = {"approx_kl": kl, "x_grad_norm": 10.0 * batch, "nonfinite": batch < 0}
        metrics |= {"ratio_max": 1.0 + batch, "ratio_min": 1.0 / (1.0 + batch)}
        return current + 10**batch, metrics

    learn = controls.stop_early(2.0, learn)
    (current, goes_on), stacked = jax.lax.scan(learn, (0, jnp.bool_(True)), jnp.arange(7))
    assert current == 1111 and not goes_on
    np.testing.assert_array_equal(stacked["taken"], np.arange(7) < 4)
    metrics = step_metrics(stacked)
    assert metrics["updates"] == 4 and metrics["x_grad_norm"] == 15
    assert metrics["ratio_max"] == 5 and metrics["ratio_min"] == pytest.approx(1 / 5)
    assert metrics["approx_kl"] == 2  # of 0 to 4, those that were computed


def test_rates_decay_to_their_floor():
    steps = jnp.array([0, 25, 50, 100, 200])
    linear = rate_share(OptimizerConfig(decay="linear", floor=0.2), steps, 100)
    np.testing.assert_allclose(linear, [1, 0.8, 0.6, 0.2, 0.2], rtol=1e-6)
    cosine = rate_share(OptimizerConfig(decay="cosine"), steps, 100)
    np.testing.assert_allclose(cosine, [1, 0.5 + 0.5**1.5, 0.5, 0, 0], atol=1e-6)
    assert rate_share(OptimizerConfig(), steps, 100) is None


def test_all_of_them_in_one_iteration():
    """Of grpo, whose four updates a small target cuts to one; what they change, by hand."""
    config = kit.tiny_config()
    config.algorithm, config.ppo.num_epochs, config.run.total_steps = "grpo", 2, 4
    config.ppo.tis_cap, config.ppo.overlong_buffer = 0.5, 4
    config.ppo.target_kl, config.ppo.adaptive_kl_target = 1e-6, 0.5
    config.ppo.actor.decay = "linear"
    rollout, feedback = kit.rollout_batch()
    state = updates.init_state(grpo.GRPO, config, kit.tiny_params())
    assert state.kl_coef == np.float32(0.04)
    reference = jax.tree.map(lambda x: 1.1 * x, kit.tiny_params())

    @jax.jit
    def step(state, *batch):
        given = (state, reference, *batch, ONE_DEVICE)
        experience, _, looked = updates.make_experience(grpo.GRPO, config, *given)
        after, learnt = updates.update(grpo.GRPO, config, state, experience, ONE_DEVICE)
        return experience, looked, after, learnt

    experience, looked, after, learnt = step(state, rollout, feedback)
    assert learnt["updates"] == 1 and learnt["nonfinite"] == 0
    counts = [x for x in jax.tree.leaves(after.actor_opt) if x.ndim == 0]
    assert counts and all(count == 1 for count in counts)
    weights = np.minimum(np.exp(experience.old_logprobs), 0.5)  # the sampler said 0
    kept = np.asarray(experience.loss_mask)
    np.testing.assert_allclose(looked["tis_weight"], weights[kept].mean(), rtol=1e-4)
    expected = controls.next_kl_coef(config, state.kl_coef, experience)
    assert after.kl_coef == expected != state.kl_coef
    assert looked["kl_coef"] == state.kl_coef and looked["overlong_share"] > 0
    *_, late, _ = step(state._replace(step=jnp.int32(3)), rollout, feedback)
    first, last = (
        np.abs(x.actor["trunk"]["embed_tokens"]["embedding"] - old).max()
        for old in [state.actor["trunk"]["embed_tokens"]["embedding"]]
        for x in (after, late)
    )
    # Adam's first step is the rate, of which a quarter is left; the rows are others
    np.testing.assert_allclose([first, last], [1e-3, 2.5e-4], rtol=0.01)


@pytest.mark.parametrize("learner", [ppo.PPO, grpo.GRPO])
def test_without_a_controller_a_state_holds_what_it_held(learner):
    state = updates.init_state(learner, kit.tiny_config(), kit.tiny_params())
    assert state.kl_coef is None


BAD = {
    "grpo.estimator": ("rloo", {}),
    "grpo.policy_loss": ("gspo", {}),
    "grpo.clip_low": (1.0, {"algorithm": "grpo"}),
    "grpo.average": ("token", {"algorithm": "grpo", "grpo.policy_loss": "gspo"}),
    "ppo.overlong_buffer": (2000, {}),
    "ppo.target_kl": (0.1, {}),
    "ppo.adaptive_kl_target": (6.0, {"algorithm": "grpo", "grpo.kl_coef": 0.0}),
    "ppo.critic.floor": (0.1, {}),
    "sampling.rollouts_per_problem": (1, {"algorithm": "grpo", "grpo.estimator": "rloo"}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_means_nothing_is_refused_in_one_line(name):
    value, others = BAD[name]
    config = Config()
    config.model.max_positions = 4096
    for field, other in {**others, name: value}.items():
        owner, _, last = field.rpartition(".")
        section = config
        for part in filter(None, owner.split(".")):
            section = getattr(section, part)
        setattr(section, last, other)
    with pytest.raises(ConfigError, match=rf"^{name}: expected [^\n]+$"):
        config.validate()


def test_one_rollout_is_enough_for_reinforce_plus_plus():
    config = Config(algorithm="grpo")
    config.model.max_positions = 4096
    config.sampling.rollouts_per_problem = 1
    config.grpo.estimator = "reinforce_plus_plus"
    config.validate()
