import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.learning import advantages as adv

ROWS, COLUMNS = 5, 9


def random_batch(kind="tail"):
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, ROWS, COLUMNS)).astype(np.float32)
    masks = {
        "tail": np.arange(COLUMNS)[None] < np.array([[9], [4], [1], [0], [6]]),
        "none": np.ones((ROWS, COLUMNS), bool),
        "holes": rng.random((ROWS, COLUMNS)) < 0.6,
    }
    mask = masks[kind]
    return np.where(mask, rewards, 0), np.where(mask, values, 0), mask


def gae_by_loop(rewards, values, mask, gamma, lam):
    gamma = np.broadcast_to(gamma, rewards.shape)
    advantages = np.zeros_like(rewards)
    for row in range(len(rewards)):
        places = np.flatnonzero(mask[row])
        for i, t in enumerate(places):
            total, weight = 0.0, 1.0
            for j in range(i, len(places)):
                after = values[row, places[j + 1]] if j + 1 < len(places) else 0.0
                here = places[j]
                g = gamma[row, here]
                delta = rewards[row, here] + g * after - values[row, here]
                total, weight = total + weight * delta, weight * g * lam
            advantages[row, t] = total
    return advantages


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("kind", ["tail", "none", "holes"])
def test_gae_equals_the_loop(kind, each):
    rewards, values, mask = random_batch(kind)
    discount = np.random.default_rng(1).random(mask.shape, np.float32) if each else 0.9
    advantages, returns = adv.gae(rewards, values, mask, discount, 0.7)
    expected = gae_by_loop(rewards, values, mask, discount, 0.7)
    np.testing.assert_allclose(advantages, expected, atol=1e-5)
    np.testing.assert_allclose(returns, np.where(mask, expected + values, 0), atol=1e-5)


def test_gae_by_hand():
    # r = 0, 1; V = 0.5, 0.2; gamma 0.5, lambda 0.5
    # delta_1 = 1 - 0.2 = 0.8; delta_0 = 0 + 0.5 * 0.2 - 0.5 = -0.4
    # A_1 = 0.8; A_0 = -0.4 + 0.25 * 0.8 = -0.2; returns 0.3 and 1
    rewards, values = jnp.array([[0.0, 1.0]]), jnp.array([[0.5, 0.2]])
    advantages, returns = adv.gae(rewards, values, jnp.ones((1, 2), bool), 0.5, 0.5)
    np.testing.assert_allclose(advantages, [[-0.2, 0.8]], atol=1e-6)
    np.testing.assert_allclose(returns, [[0.3, 1.0]], atol=1e-6)


def gae_of_one_gamma(rewards, values, mask, gamma, lam):
    """GAE as it was written before discounts were arrays."""

    def step(carry, column):
        (next_value, next_advantage), (reward, value, keep) = carry, column
        delta = reward + gamma * next_value - value
        advantage = delta + gamma * lam * next_advantage
        new = zip((value, advantage), carry)
        return tuple(jnp.where(keep, *x) for x in new), jnp.where(keep, advantage, 0.0)

    zeros = jnp.zeros(len(rewards), jnp.float32)
    columns = (rewards.T, values.T, mask.T)
    return jax.lax.scan(step, (zeros, zeros), columns, reverse=True)[1].T


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.98, 0.9), (0.123, 0.77)])
def test_one_gamma_gives_the_bits_of_before(gamma, lam):
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 16, 64)).astype(np.float32)
    given = rewards, values, rng.random(rewards.shape) < 0.8
    now = jax.jit(lambda *x: adv.gae(*x, gamma, lam))(*given)
    then = jax.jit(lambda *x: gae_of_one_gamma(*x, gamma, lam))(*given)
    np.testing.assert_array_equal(now[0], then)


# An explanation of three tokens with R(e) = 2, and two of a program with R(r) = -5.
PARTS = jnp.array([[0.0, 0.0, 2.0, 0.0, -5.0]])
EXPLAINED = jnp.array([3])


@pytest.mark.parametrize(
    ("apart", "expected"), [([0], [-3, -3, -3, -5, -5]), ([3], [2, 2, 2, -5, -5])]
)
def test_two_rewards_by_hand(apart, expected):
    """As the paper prints it, the explanation pays for the program; split, it does not."""
    zeros, mask, apart = jnp.zeros((1, 5)), jnp.ones((1, 5), bool), jnp.array(apart)
    discount = adv.split_discounts(1.0, apart, 5)
    advantages, _ = adv.gae(PARTS, zeros, mask, discount, 1.0)
    np.testing.assert_array_equal(advantages, [expected])
    advantages, _ = adv.part_advantages(PARTS, zeros, mask, apart)
    one = expected if apart[0] else [-3] * 5  # of all that is not parted
    np.testing.assert_array_equal(advantages, [one])


def test_a_discount_of_0_makes_two_answers_of_one():
    """Neither a reward nor a value from behind the boundary reaches what is before it."""
    rewards, values, mask = random_batch("tail")
    explained = jnp.array([5, 4, 0, 0, 2])  # within, all of it, none, none, within
    discount = adv.split_discounts(0.9, explained, COLUMNS)
    opens = np.asarray(adv.in_explanation(explained, mask))
    assert opens.sum(axis=1).tolist() == [5, 4, 0, 0, 2]
    whole = adv.gae(rewards, values, mask, discount, 0.7)
    parts = [adv.gae(rewards, values, part, 0.9, 0.7) for part in (opens, mask & ~opens)]
    for got, *both in zip(whole, *parts):
        np.testing.assert_allclose(got, sum(both), atol=1e-6)


def test_parts_of_an_answer_by_a_loop():
    rewards, values, mask = random_batch("tail")
    explained = np.array([5, 4, 0, 0, 2])
    advantages, returns = adv.part_advantages(rewards, values, mask, explained)
    expected, paid = np.zeros_like(rewards), np.zeros_like(rewards)
    firsts = np.zeros_like(mask)
    for row, (cut, end) in enumerate(zip(explained, mask.sum(axis=1))):
        for part in (slice(0, cut), slice(cut, end)):
            if part.start < part.stop:
                paid[row, part] = rewards[row, part].sum()
                expected[row, part] = paid[row, part] - values[row, part.start]
                firsts[row, part.start] = True
    np.testing.assert_allclose(advantages, expected, atol=1e-6)
    np.testing.assert_allclose(returns, paid, atol=1e-6)
    np.testing.assert_array_equal(adv.first_tokens(explained, mask), firsts)


def test_lambda_0_gives_the_td_error_and_lambda_1_returns_minus_values():
    rewards, values, mask = random_batch("none")
    td, _ = adv.gae(rewards, values, mask, 0.9, 0.0)
    after = np.pad(values[:, 1:], ((0, 0), (0, 1)))
    np.testing.assert_allclose(td, rewards + 0.9 * after - values, atol=1e-5)
    full, returns = adv.gae(rewards, values, mask, 1.0, 1.0)
    to_go = np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1]
    np.testing.assert_allclose(full, to_go - values, atol=1e-5)
    np.testing.assert_allclose(returns, to_go, atol=1e-5)


def test_more_padding_changes_nothing():
    rewards, values, mask = random_batch()
    plain = adv.gae(rewards, values, mask, 0.9, 0.7)
    wide = [np.pad(x, ((0, 0), (0, 4))) for x in (rewards, values, mask)]
    padded = adv.gae(*wide, 0.9, 0.7)
    for a, b in zip(plain, padded):
        np.testing.assert_array_equal(a, b[:, :COLUMNS])
        assert not np.any(b[:, COLUMNS:])


def test_garbage_outside_the_mask_has_no_influence():
    rewards, values, mask = random_batch()
    dirty = (np.where(mask, x, np.nan).astype(np.float32) for x in (rewards, values))
    for a, b in zip(
        adv.gae(*dirty, mask, 1.0, 0.9), adv.gae(rewards, values, mask, 1.0, 0.9)
    ):
        np.testing.assert_array_equal(a, b)
    x = np.where(mask, rewards, np.nan)
    assert np.isfinite(adv.masked_mean(x, mask))


def test_token_rewards_keep_fractions_and_charge_kl_on_the_mask_alone():
    # -0.3 - 0.1 * (-1 - -1.5) = -0.35; a reward made in integers would be 0
    with jax.numpy_dtype_promotion("strict"):
        outcome = jnp.array([[0.0, -0.3, 0.0]], jnp.float32)
        logprobs = jnp.array([[-2.0, -1.0, 5.0]], jnp.float32)
        ref = jnp.array([[-2.5, -1.5, 0.0]], jnp.float32)
        mask = jnp.array([[True, True, False]])
        got = adv.token_rewards(outcome, logprobs, ref, mask, 0.1)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [[-0.05, -0.35, 0.0]], atol=1e-6)


def test_whitening_is_unbiased_over_the_mask():
    x, _, mask = random_batch("holes")
    white = np.asarray(adv.whiten(x, mask))
    np.testing.assert_allclose(white[mask].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(white[mask].std(ddof=1), 1, atol=1e-5)
    assert not np.any(white[~mask])
    again = adv.whiten(3 * x + 2, mask)
    np.testing.assert_allclose(again, white, atol=1e-5)  # shift and scale do not matter
    assert np.isfinite(adv.whiten(x, np.zeros_like(mask))).all()


def test_masked_mean_by_hand():
    x, mask = jnp.array([[1.0, 2.0, 9.0]]), jnp.array([[True, True, False]])
    assert adv.masked_mean(x, mask) == 1.5
    assert adv.masked_mean(x, jnp.zeros_like(mask)) == 0.0


def test_the_running_scale_is_the_standard_deviation_of_all_valid_rewards():
    rng = np.random.default_rng(3)
    scale, seen = adv.init_reward_scale(), []
    for _ in range(4):
        outcome = rng.choice(np.float32([1, -0.3, -0.6, -1]), 8)
        valid = rng.random(8) < 0.7
        scale = adv.update_reward_scale(scale, jnp.asarray(outcome), jnp.asarray(valid))
        seen.extend(outcome[valid])
    assert scale.count == len(seen)
    np.testing.assert_allclose(adv.reward_divisor(scale), np.std(seen, ddof=1), rtol=1e-5)
    empty = adv.update_reward_scale(scale, outcome, np.zeros(8, bool))
    np.testing.assert_allclose(empty, scale, rtol=1e-6)


def test_rewards_without_spread_are_not_divided():
    scale = adv.init_reward_scale()
    assert adv.reward_divisor(scale) == 1.0
    scale = adv.update_reward_scale(scale, jnp.full(8, -0.3), jnp.ones(8, bool))
    assert adv.reward_divisor(scale) == 1.0
