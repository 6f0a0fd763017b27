"""RLOO, REINFORCE++, GSPO and CISPO: by hand, and against plain loops in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.learning import advantages as adv
from stepcoder_jax.learning import grpo, losses, updates
from stepcoder_jax.learning.batching import ONE_DEVICE
from stepcoder_jax.learning.scoring import Current, RolloutScores
from tests import kit
from tests.learning.test_grpo import (
    GROUPS,
    KEPT,
    RATIO,
    SPAN_MASK,
    SPAN_REWARDS,
    VALID,
    by_hand,
    make_config,
)

RLOO = [[1 + 1.9 / 3, -0.1, -0.5, -1 - 0.1 / 3], [1.0, 1.0, -2.0, 0.0]]


def rows_of(estimator, rewards, valid, group=4):
    config = make_config(estimator=estimator)
    config.sampling.rollouts_per_problem = group
    given = (jnp.asarray(x.reshape(-1)) for x in (rewards, valid))
    got, metrics = grpo.row_advantages(config, *given)
    return np.asarray(got).reshape(rewards.shape), metrics


def test_rloo_by_hand():
    got, metrics = rows_of("rloo", GROUPS, VALID)
    np.testing.assert_allclose(got[:2], RLOO, atol=1e-6)
    assert np.all(got[2:] == 0) and metrics["grpo/equal_groups"] == 3


def test_rloo_is_each_row_less_the_others():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(9, 5)).astype(np.float32)
    valid = rng.random((9, 5)) < 0.6
    got, _ = rows_of("rloo", rewards, valid, group=5)
    for i, group in enumerate(rewards):
        for j, reward in enumerate(group):
            others = [group[k] for k in range(5) if k != j and valid[i, k]]
            expected = reward - np.mean(others) if valid[i, j] and others else 0.0
            np.testing.assert_allclose(got[i, j], expected, atol=1e-6)


def test_the_std_is_of_grpo_alone():
    plain, _ = rows_of("reinforce_plus_plus_baseline", GROUPS, VALID)
    np.testing.assert_allclose(plain[0], [1.225, -0.075, -0.375, -0.775], atol=1e-6)
    scaled, _ = rows_of("grpo", GROUPS, VALID)
    assert abs(scaled[0] - plain[0]).max() > 0.1


def test_rows_less_the_batch_are_exactly_0_where_all_are_equal():
    got, _ = rows_of("reinforce_plus_plus", GROUPS, VALID)
    mean = GROUPS[VALID].mean()
    np.testing.assert_allclose(got, np.where(VALID, GROUPS - mean, 0), atol=1e-6)
    same = np.full((1, 10), -0.3, np.float32)
    got, _ = rows_of("reinforce_plus_plus", same, same < 0, group=10)
    assert jnp.mean(same) != same[0, 0] and np.all(got == 0)


def plus_plus(rewards, kl, mask, explained, coef):
    """arXiv:2501.03262v8, eqs. 8 to 10, token by token; each part by itself."""
    found, rows = np.zeros(mask.shape), np.flatnonzero(mask.any(axis=1))
    for opens in (False, True):
        parts = {}
        for i in rows:
            end = int(mask[i].sum())
            part = range(explained[i]) if opens else range(explained[i], end)
            if len(part):
                parts[i] = part
        sums = {i: sum(rewards[i, t] for t in part) for i, part in parts.items()}
        for i, part in parts.items():
            worth = sums[i] - np.mean(list(sums.values()))
            for t in part:
                later = sum(kl[i, u] for u in part if u >= t)
                found[i, t] = worth - coef * later
    return found


@pytest.mark.parametrize("is_parted", [False, True])
def test_reinforce_plus_plus_pays_for_the_kl_from_each_token_on(is_parted):
    config = make_config(estimator="reinforce_plus_plus", kl_coef=0.3)
    config.sampling.rollouts_per_problem = 1
    rng = np.random.default_rng(1)
    new, ref = rng.normal(size=(2, *SPAN_MASK.shape)).astype(np.float32)
    explained = np.array([2, 0, 1, 3, 2], np.int32) * is_parted
    mask = SPAN_MASK & (np.arange(5) < 4)[:, None]
    rows = updates.Experience(None, None, None, mask, mask)
    rows = rows._replace(explained=explained if is_parted else None)
    opens = np.arange(4)[None] < explained[:, None]
    judged = np.zeros(mask.shape, np.float32)
    for part in (mask & opens, mask & ~opens):
        sums = np.where(part, SPAN_REWARDS, 0).sum(axis=1)
        got, _ = grpo.row_advantages(config, jnp.asarray(sums), jnp.any(part, axis=1))
        judged += np.where(part, np.asarray(got)[:, None], 0)
    rows = rows._replace(advantages=judged)
    scores = RolloutScores(*(np.where(mask, x, 0) for x in (new, ref)), None, None)
    got = grpo.complete(config, rows, None, scores)
    expected = plus_plus(SPAN_REWARDS, new - ref, mask, explained, 0.3)
    np.testing.assert_allclose(got.advantages, expected, atol=1e-5)
    moved = rows._replace(kl_coef=np.full(5, 0.6, np.float32))  # a controller's
    got = grpo.complete(config, moved, None, scores)
    expected = plus_plus(SPAN_REWARDS, new - ref, mask, explained, 0.6)
    np.testing.assert_allclose(got.advantages, expected, atol=1e-5)


@pytest.mark.parametrize(
    "estimator", ["reinforce_plus_plus", "reinforce_plus_plus_baseline"]
)
def test_advantages_are_normalised_over_the_batch(estimator):
    config = make_config(estimator=estimator, kl_coef=0.3)
    assert not updates.learns_in_one_pass(grpo.GRPO, config)
    rollout, feedback = kit.rollout_batch()
    state = updates.init_state(grpo.GRPO, config, kit.tiny_params())
    reference = jax.tree.map(lambda x: 1.1 * x, kit.tiny_params())
    got, _, metrics = jax.jit(
        lambda *given: updates.make_experience(grpo.GRPO, config, *given, ONE_DEVICE)
    )(state, reference, rollout, feedback)
    mask = np.asarray(got.mask)
    kl = np.asarray(got.old_logprobs - got.ref_logprobs)
    assert abs(kl).max() > 0.01
    if estimator == "reinforce_plus_plus":
        zeros = np.zeros(len(mask), np.int32)
        plain = plus_plus(feedback.rewards, kl, mask, zeros, 0.3)
    else:
        sums, valid = feedback.rewards.sum(axis=1), feedback.valid
        rows = rows_of(estimator, sums.reshape(-1, 4), valid.reshape(-1, 4))[0]
        plain = np.where(mask, rows.reshape(-1, 1), 0)
    kept = plain[np.asarray(got.loss_mask)]
    expected = np.where(got.loss_mask, (plain - kept.mean()) / kept.std(ddof=1), 0)
    np.testing.assert_allclose(got.advantages, expected, atol=1e-4)
    assert metrics["grpo/equal_share"] >= 0


def test_a_batch_of_equal_rewards_is_not_blown_up():
    config = make_config(estimator="reinforce_plus_plus_baseline")
    rollout, feedback = kit.rollout_batch()
    same = feedback._replace(rewards=np.where(feedback.rewards, -0.3, 0).astype(np.float32))
    begun = grpo.begin(config, adv.init_reward_scale(), rollout, same)
    assert not np.any(begun.outcome) and not np.any(begun.experience.advantages)


def gradient_of(policy_loss, **bounds):
    config = make_config(policy_loss=policy_loss, average="sequence", kl_coef=0.0, **bounds)
    new, experience = by_hand()

    def loss(logprobs):
        current = Current(logprobs, 0 * logprobs, values=None, hidden=None)
        divisor = grpo.divisors(config, experience)
        return grpo.loss(config, current, experience, divisor)

    (value, logged), gradient = jax.value_and_grad(loss, has_aux=True)(new)
    return float(value), np.asarray(gradient), logged.sums


def test_gspo_by_hand():
    """Row 1: s = (1.5 x 1.1 x 1)^(1/3) = 1.1817, A = 2. Row 2: (0.5 x 1)^(1/2), A = -1."""
    first, second = 1.65 ** (1 / 3), 0.5**0.5
    value, gradient, sums = gradient_of(
        "gspo", sequence_clip_low=0.2, sequence_clip_high=0.2
    )
    # the first is not held at 1.2; the second is at 0.8: max(0.7071, 0.8), without gradient
    np.testing.assert_allclose(value, (-2 * first + 0.8) / 2, rtol=1e-5)
    expected = np.where(KEPT, [[-2 * first / 3 / 2], [0.0]], 0)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert sums["clip_fraction"].total == 2 and sums["clip_fraction"].count == 5
    assert np.all(gradient[~KEPT] == 0)
    value, gradient, _ = gradient_of("gspo", sequence_clip_low=0.4, sequence_clip_high=0.1)
    np.testing.assert_allclose(value, (-2 * 1.1 + second) / 2, rtol=1e-5)
    expected = np.where(KEPT, [[0.0], [second / 2 / 2]], 0)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_cispo_by_hand():
    """Weights are the ratios within [0.8, 1.28]; each token keeps its gradient, -w A."""
    value, gradient, sums = gradient_of("cispo", clip_high=0.28)
    weight = np.clip(RATIO, 0.8, 1.28)
    worth = np.where(KEPT, -weight * np.array([[2.0], [-1.0]]), 0)
    shares = np.array([[1 / 3 / 2], [1 / 2 / 2]])
    np.testing.assert_allclose(gradient, worth * shares, atol=1e-6)
    np.testing.assert_allclose(value, (worth * shares * np.log(0.1)).sum(), rtol=1e-5)
    assert sums["clip_fraction"].total == 2  # 1.5 and 0.5
    _, free, sums = gradient_of("cispo", clip_low=1.0, clip_high=0.28)
    assert free[1, 0] == pytest.approx(0.5 / 2 / 2) and sums["clip_fraction"].total == 1


def plain_losses(kind, new, old, advantages, mask, low, high):
    """Value and slope of each kept token's loss, by the formulas of the papers."""
    value, slope = np.zeros(new.shape), np.zeros(new.shape)
    for i, kept in enumerate(mask):
        tokens = np.flatnonzero(kept)
        sequence = np.exp(np.mean(new[i, tokens] - old[i, tokens])) if len(tokens) else 1
        for t in tokens:
            ratio = sequence if kind == "gspo" else np.exp(new[i, t] - old[i, t])
            bound, worth = np.clip(ratio, 1 - low, 1 + high), advantages[i, t]
            if kind == "cispo":
                value[i, t], slope[i, t] = -bound * worth * new[i, t], -bound * worth
            else:
                value[i, t] = -min(ratio * worth, bound * worth)
                slope[i, t] = -ratio * worth if ratio * worth <= bound * worth else 0.0
    return value, slope


@pytest.mark.parametrize("kind", ["gspo", "cispo"])
def test_the_losses_are_those_of_the_papers_under_random_masks(kind):
    rng = np.random.default_rng(7)
    new = -rng.random((6, 8)).astype(np.float32)
    old = new + rng.normal(scale=0.3, size=new.shape).astype(np.float32)
    advantages = rng.normal(size=new.shape).astype(np.float32)
    mask = rng.random(new.shape) < 0.6
    mask[3] = False  # a row without a kept token
    chosen = losses.sequence_surrogate if kind == "gspo" else losses.weighted_surrogate
    surrogate, pull = jax.vjp(lambda x: chosen(x, old, advantages, mask, 0.1, 0.2)[0], new)
    value, slope = plain_losses(kind, new, old, advantages, mask, 0.1, 0.2)
    np.testing.assert_allclose(np.where(mask, surrogate, 0), value, atol=1e-6)
    (gradient,) = pull(jnp.asarray(mask, jnp.float32))
    np.testing.assert_allclose(gradient, slope, atol=1e-6)
    assert np.any(slope[mask] == 0) == (kind == "gspo")
