import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.learning import advantages as adv
from stepcoder_jax.learning import batching, losses, ppo, scoring, updates
from stepcoder_jax.learning import metrics as logs
from stepcoder_jax.learning.batching import ONE_DEVICE
from tests import kit


def make_config(**fields):
    config = kit.tiny_config()
    for name, value in fields.items():
        owner = config.model if name == "shared_trunk" else config.ppo
        assert hasattr(owner, name)
        setattr(owner, name, value)
    return config


@functools.cache
def reference():
    """The policy before: parameters near those of the actor, so that KL is not 0."""
    keys = iter(jax.random.split(jax.random.key(5), 100))
    return jax.tree.map(
        lambda x: x + 0.02 * jax.random.normal(next(keys), x.shape), kit.tiny_params()
    )


def make_state(config, step=0):
    state = updates.init_state(ppo.PPO, config, kit.tiny_params())
    head = {"value_head": {"kernel": jnp.full((32, 1), 0.02), "bias": jnp.full(1, 0.1)}}
    return state._replace(critic=state.critic | head, step=jnp.int32(step))


@functools.cache
def programs(**fields):
    """Jitted steps, one compilation for each config that the tests use."""
    config, frozen = make_config(**fields), reference()

    def experience(state, rollout, feedback):
        return updates.make_experience(
            ppo.PPO, config, state, frozen, rollout, feedback, ONE_DEVICE
        )

    def update(state, experience):
        return updates.update(ppo.PPO, config, state, experience, ONE_DEVICE)

    return config, jax.jit(experience), jax.jit(update)


@functools.cache
def iteration():
    """State, experience, scale, metrics, state after, metrics of the update."""
    config, make, update = programs()
    state = make_state(config)
    experience, scale, metrics = make(state, *kit.rollout_batch())
    after, learned = update(state, experience)
    return jax.device_get((state, experience, scale, metrics, after, learned))


def differs(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(np.any(np.asarray(x) != np.asarray(y)) for x, y in leaves)


def test_experience_keeps_the_laws():
    rollout, feedback = kit.rollout_batch()
    _, got, *_ = iteration()
    mask = rollout.mask & feedback.valid[:, None]
    np.testing.assert_array_equal(got.mask, mask)
    np.testing.assert_array_equal(got.loss_mask, mask & feedback.executed)
    for name in ("old_logprobs", "ref_logprobs", "old_values", "advantages", "returns"):
        array = getattr(got, name)
        assert np.all(array[~mask] == 0), name
        assert np.any(array[mask] != 0), name
    assert not mask[3].any()  # the invalid row takes part in nothing


def test_experience_equals_its_parts():
    config = make_config()
    rollout, feedback = kit.rollout_batch()
    state, got, _, metrics, *_ = iteration()
    where = (rollout.tokens, rollout.prompt_length, kit.COLUMNS)
    chosen = scoring.completion_tokens(*where)

    def log_pi(params):
        logits = kit.completion_logits(config.model, params, *where)
        return kit.log_policy(logits, config.sampling.temperature)

    mask = got.mask
    new, ref = log_pi(state.actor), log_pi(reference())
    expected = np.where(mask, kit.token_logprobs(new, chosen), 0)
    np.testing.assert_allclose(got.old_logprobs, expected, atol=1e-5)
    expected = np.where(mask, kit.token_logprobs(ref, chosen), 0)
    np.testing.assert_allclose(got.ref_logprobs, expected, atol=1e-5)
    rewards = adv.token_rewards(
        feedback.rewards, got.old_logprobs, got.ref_logprobs, mask, config.ppo.kl_coef
    )
    advantages, returns = adv.gae(rewards, got.old_values, mask, 1.0, 0.95)
    np.testing.assert_allclose(got.advantages, advantages, atol=1e-5)
    np.testing.assert_allclose(got.returns, returns, atol=1e-5)
    kl = np.asarray(kit.kl_divergence(new, ref))
    kept = got.loss_mask
    np.testing.assert_allclose(metrics["kl"], kl[mask].mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["kl_executed"], kl[kept].mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["kl_unexecuted"], kl[mask & ~kept].mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["masked_fraction"], 1 - kept.sum() / mask.sum())
    errors = (got.returns - got.old_values)[mask]
    explained = 1 - errors.var() / got.returns[mask].var()
    np.testing.assert_allclose(metrics["explained_variance"], explained, rtol=1e-3)
    some = logs.ValueMoments(*(x[:8] for x in metrics["rows"]))
    errors = errors[: mask[:8].sum()]
    few = errors.var() / got.returns[:8][mask[:8]].var()
    np.testing.assert_allclose(logs.explained_variance(some), 1 - few, rtol=1e-3)
    bias, rmse = logs.value_errors(some)
    np.testing.assert_allclose(bias, -errors.mean(), rtol=1e-4)
    np.testing.assert_allclose(rmse, np.sqrt(np.mean(errors**2)), rtol=1e-4)


def moments_of(values, returns, mask):
    return logs.value_moments(*(jnp.asarray(x) for x in (values, returns, mask)))


@pytest.mark.parametrize("size", [0.1, 1.0, 37.7, 1e4])
def test_returns_that_are_all_equal_leave_nothing_to_explain(size):
    rng = np.random.default_rng(0)
    values = size * rng.normal(size=(64, 300)).astype(np.float32)
    mask = rng.random(values.shape) < 0.7
    # as gae makes them: advantages + values, so equal but for the rounding
    returns = (np.float32(size) - values) + values
    assert logs.explained_variance(moments_of(values, returns, mask)) == 0
    bias, rmse = logs.value_errors(moments_of(values, returns, mask))
    errors = (values.astype(float) - returns)[mask]
    np.testing.assert_allclose(bias, errors.mean(), rtol=1e-4)
    np.testing.assert_allclose(rmse, np.sqrt(np.mean(errors**2)), rtol=1e-4)


def test_a_small_spread_about_a_large_mean_is_measured():
    """Rows of means of their own, near 100: sums of squares would leave only rounding."""
    rng = np.random.default_rng(0)
    shape, mask = (32, 200), rng.random((32, 200)) < 0.8
    signal = rng.normal(size=shape) + rng.normal(size=(32, 1))
    returns = (100 + 0.02 * signal).astype(np.float32)
    values = (100 + 0.01 * signal + 0.005 * rng.normal(size=shape)).astype(np.float32)
    exact, wanted = values.astype(float)[mask], returns.astype(float)[mask]
    expected = 1 - (wanted - exact).var() / wanted.var()
    assert 0.5 < expected < 0.9
    moments = moments_of(values, returns, mask)
    np.testing.assert_allclose(logs.explained_variance(moments), expected, rtol=1e-3)


def test_nothing_to_count_has_no_bias_and_explains_nothing():
    zeros = np.zeros((4, 5), np.float32)
    moments = moments_of(zeros + 1, zeros, zeros > 0)
    assert logs.explained_variance(moments) == 0
    assert all(np.isnan(x) for x in logs.value_errors(moments))


def test_approx_kl_is_that_of_samples_of_the_old_policy():
    """Two tokens by hand: E_old[new / old - 1 - log(new / old)]; others do not count."""
    old, new = np.log([0.5, 0.25]), np.log([0.75, 0.125])
    # 1.5 - 1 - log 1.5 = 0.094535, 0.5 - 1 - log 0.5 = 0.193147; their mean
    log_ratio = jnp.asarray([[*(new - old), 3.0]])
    logged = logs.ratio_metrics(log_ratio, jnp.asarray([[True, True, False]]))
    total, count = logged.sums["approx_kl"]
    assert count == 2 and total / count == pytest.approx(0.143841, abs=1e-5)
    assert logged.extremes["ratio_max"] == pytest.approx(1.5)
    assert logged.extremes["ratio_min"] == pytest.approx(0.5)
    # the estimate is unbiased: over all tokens of a small vocabulary it is KL(old || new)
    old, new = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    terms = losses.k3(-jnp.log(new / old)[None])[0]
    assert np.sum(old * terms) == pytest.approx(np.sum(old * np.log(old / new)), rel=1e-5)


def test_whitening_needs_rewards_that_differ():
    """Equal outcome rewards: what the critic's noise leaves is not blown up to 1."""
    _, make, _ = programs(whiten_advantages=True, kl_coef=0.0)
    rollout, feedback = kit.rollout_batch()
    state = make_state(make_config())
    white, *_ = make(state, rollout, feedback)
    spread = np.asarray(white.advantages)[np.asarray(white.loss_mask)].std()
    assert spread == pytest.approx(1, abs=0.02)
    equal = np.where(feedback.rewards != 0, np.float32(-1), np.float32(0))
    equal[3] *= 0.5  # not a valid row
    same, *_ = make(state, rollout, feedback._replace(rewards=equal))
    _, plain, _ = programs(kl_coef=0.0)
    unscaled, *_ = plain(state, rollout, feedback._replace(rewards=equal))
    np.testing.assert_array_equal(same.advantages, unscaled.advantages)
    # the only other reward is that of a row without a kept token
    masked = np.array(feedback.executed)
    masked[0], equal[0] = False, equal[0] * 0.5
    other = feedback._replace(rewards=equal, executed=masked)
    same, *_ = make(state, rollout, other)
    unscaled, *_ = plain(state, rollout, other)
    np.testing.assert_array_equal(same.advantages, unscaled.advantages)


def test_the_ratio_is_1_at_the_first_minibatch_and_not_later():
    *_, learned = iteration()
    assert learned["ratio_max_first"] == pytest.approx(1.0, abs=1e-5)
    assert learned["ratio_min_first"] == pytest.approx(1.0, abs=1e-5)
    assert learned["ratio_max"] > 1.001  # the second minibatch sees a moved policy


def test_reward_scaling_divides_the_outcome_before_kl_is_added():
    _, make, _ = programs(scale_rewards=True)
    rollout, feedback = kit.rollout_batch()
    _, plain, *_ = iteration()
    scaled, scale, _ = make(make_state(make_config()), rollout, feedback)
    outcome = feedback.rewards.sum(axis=1)[feedback.valid]
    std = outcome.std(ddof=1)
    assert scale.count == feedback.valid.sum()
    rewards = adv.token_rewards(
        feedback.rewards / std, plain.old_logprobs, plain.ref_logprobs, plain.mask, 0.05
    )
    expected, _ = adv.gae(rewards, plain.old_values, plain.mask, 1.0, 0.95)
    np.testing.assert_allclose(scaled.advantages, expected, atol=1e-4)


# To update after an intended change of the mathematics: run this test, read the message,
# and say in the commit why the numbers moved. A change that should not move them must not.
GOLDEN = {
    "kl": 0.0904435,
    "kl_executed": 0.0943437,
    "kl_unexecuted": 0.0743551,
    "kl_sampled": 0.0638733,
    "advantage": -0.319772,
    "value": 0.0780545,
    "return": -0.181142,
    "explained_variance": 0.0177377,
    "policy_loss": 0.324618,
    "entropy": 5.47507,
    "value_loss": 0.259833,
    "approx_kl": 0.00164646,
    "ratio_max": 1.27469,
    "actor_grad_norm": 2.73242,
    "critic_grad_norm": 1.20101,
}


def test_golden_metrics_of_one_iteration():
    *_, metrics, _, learned = iteration()
    got = {name: float(x) for name, x in (metrics | learned).items() if name in GOLDEN}
    assert got == pytest.approx(GOLDEN, rel=1e-3, abs=1e-5)


def test_what_lies_outside_the_loss_mask_does_not_move_the_actor():
    state, experience, *_, after, _ = iteration()
    _, _, update = programs()
    noise = np.random.default_rng(0).normal(size=experience.mask.shape).astype(np.float32)
    changed = {
        name: np.where(experience.loss_mask, getattr(experience, name), noise)
        for name in ("advantages", "old_logprobs")
    }
    other, _ = update(state, experience._replace(**changed))
    jax.tree.map(np.testing.assert_array_equal, other.actor, after.actor)
    kept = np.where(experience.loss_mask, noise, experience.advantages)
    moved, _ = update(state, experience._replace(advantages=kept))
    assert differs(moved.actor, after.actor)


def test_a_batch_without_a_kept_token_leaves_actor_moments_and_schedule_untouched():
    state, experience, *_ = iteration()
    _, _, update = programs()
    nothing = np.zeros_like(experience.loss_mask)
    after, metrics = update(state, experience._replace(loss_mask=nothing))
    assert not differs((after.actor, after.actor_opt), (state.actor, state.actor_opt))
    assert differs(after.critic, state.critic)  # values still have their mask
    both = experience._replace(loss_mask=nothing, mask=nothing)
    after, metrics = update(state, both)
    assert not differs(after[1:], state[1:])
    assert after.step == state.step + 1
    assert metrics["nonfinite"] == 0


def test_critic_warm_up_holds_the_actor_until_its_step():
    _, experience, *_ = iteration()
    config, _, update = programs(critic_warmup_steps=2)
    for step, learns in ((0, False), (1, False), (2, True)):
        state = make_state(config, step)
        after, _ = update(state, experience)
        assert differs(after.actor, state.actor) is learns
        assert differs(after.actor_opt, state.actor_opt) is learns
        assert differs(after.critic, state.critic)


def test_a_shared_trunk_learns_values_through_the_actor():
    config, make, update = programs(shared_trunk=True)
    state = make_state(config)
    assert set(state.critic) == {"value_head"}
    experience, _, _ = make(state, *kit.rollout_batch())
    silent = experience._replace(advantages=np.zeros_like(experience.advantages))
    after, _ = update(state, silent)  # only the value loss has a gradient
    assert differs(after.actor, state.actor)
    assert differs(after.critic, state.critic)


def test_an_update_that_is_not_finite_leaves_itself_out_and_those_behind_it():
    state, experience, *_ = iteration()
    config, _, update = programs()
    order = batching.shuffle_order(config, state.step, kit.ROWS)

    def broken_in(minibatch, value):
        places = np.argwhere(experience.loss_mask)
        row, column = next(x for x in places if x[0] in np.asarray(order[minibatch]))
        advantages = experience.advantages.copy()
        advantages[row, column] = value
        return update(state, experience._replace(advantages=advantages))

    for value in (np.nan, np.inf, 1e38):  # the last: a gradient whose squares overflow
        after, metrics = broken_in(0, value)
        assert metrics["nonfinite"] == 2
        jax.tree.map(np.testing.assert_array_equal, after, state)  # its number as well
    after, metrics = broken_in(1, np.nan)
    assert metrics["nonfinite"] == 1 and after.step == state.step
    assert differs(after.actor, state.actor) and differs(after.critic, state.critic)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    counts = [x for x in jax.tree.leaves(after.actor_opt) if x.ndim == 0]
    assert counts and all(count == 1 for count in counts)


@pytest.mark.parametrize(
    ("normaliser", "name"), [("kept", "loss_mask"), ("completion", "mask")]
)
def test_the_normaliser_counts_what_it_says(normaliser, name):
    _, experience, *_ = iteration()
    config = make_config(normaliser=normaliser)
    actor, critic = ppo.divisors(config, experience)
    assert actor == getattr(experience, name).sum()
    assert critic == experience.mask.sum()
    nothing = experience._replace(
        **dict.fromkeys(("mask", "loss_mask"), experience.mask & 0)
    )
    assert ppo.divisors(config, nothing) == (1, 1)


def test_every_epoch_visits_every_row_once_in_an_order_of_its_step():
    config = make_config(num_epochs=3, num_minibatches=2)
    orders = [np.asarray(batching.shuffle_order(config, step, 16)) for step in (0, 0, 1)]
    assert orders[0].shape == (6, 8)
    epochs = orders[0].reshape(3, 16)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.arange(16)[None].repeat(3, 0))
    assert np.any(epochs[0] != epochs[1])
    np.testing.assert_array_equal(orders[0], orders[1])
    assert np.any(orders[0] != orders[2])


def test_micro_batches_trimmed_to_their_width_change_nothing():
    state, plain, *_, after, learned = iteration()
    _, make, update = programs(num_micro_batches=4, widths=(12, 18))
    experience, _, metrics = make(state, *kit.rollout_batch())
    widest = np.sort(plain.length).reshape(8, 2)[:, 1]  # of the parts of the experience
    assert set(np.searchsorted((12, 18), widest)) == {0, 1, 2}  # every width is taken
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), experience, plain
    )
    other, metrics = update(state, plain)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), other.actor, after.actor
    )
    for name in ("policy_loss", "value_loss", "entropy", "actor_grad_norm"):
        np.testing.assert_allclose(metrics[name], learned[name], rtol=1e-4)
