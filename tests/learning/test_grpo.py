"""GRPO: advantages and loss by hand, what it leaves alone, and that it learns."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.config import ConfigError, GRPOConfig, MeshConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.learning import grpo, updates
from stepcoder_jax.learning.batching import ONE_DEVICE
from stepcoder_jax.learning.scoring import Current
from stepcoder_jax.models import lora, weights
from stepcoder_jax.pytrees import Experience, Feedback, Rollout
from stepcoder_jax.runs import restore
from tests import kit
from tests.run_kit import metrics_of, rollouts_of, run_train, saved

GROUPS = np.array(
    [
        [1.0, -0.3, -0.6, -1.0],  # mean -0.225, std sqrt(2.2475 / 3) = 0.865544
        [1.0, 1.0, -1.0, 5.0],  # of the valid ones mean 1/3, std sqrt(4/3) = 1.154701
        [-0.3, -0.3, -0.3, 0.0],  # the valid ones are equal
        [1.0, -1.0, -1.0, -1.0],  # one valid row
        [1.0, -1.0, 1.0, -1.0],  # none
    ],
    np.float32,
)
VALID = np.array(
    [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool
)


def make_config(**fields):
    """The tiny config with this algorithm; fields are those of `grpo`, else of `ppo`."""
    config = kit.tiny_config()
    config.algorithm = "grpo"
    for name, value in fields.items():
        owner = config.grpo if hasattr(config.grpo, name) else config.ppo
        assert hasattr(owner, name)
        setattr(owner, name, value)
    return config


def advantages_of(scale_by_std):
    got, metrics = grpo.group_advantages(
        jnp.asarray(GROUPS.reshape(-1)), jnp.asarray(VALID.reshape(-1)), 4, scale_by_std
    )
    return np.asarray(got).reshape(-1, 4), metrics


def test_advantages_by_hand():
    scaled, metrics = advantages_of(scale_by_std=True)
    by_hand = [[1.415295, -0.086651, -0.433254, -0.895390]]
    by_hand += [[0.577350, 0.577350, -1.154701, 0.0]]
    np.testing.assert_allclose(scaled[:2], by_hand, atol=1e-5)
    plain, _ = advantages_of(scale_by_std=False)
    by_hand = [[1.225, -0.075, -0.375, -0.775], [2 / 3, 2 / 3, -4 / 3, 0.0]]
    np.testing.assert_allclose(plain[:2], by_hand, atol=1e-6)
    np.testing.assert_allclose(metrics["grpo/group_std"], (0.865544 + 1.154701) / 2, 1e-5)


@pytest.mark.parametrize("scale_by_std", [True, False])
def test_groups_that_teach_nothing_have_advantage_0_and_are_counted(scale_by_std):
    got, metrics = advantages_of(scale_by_std)
    assert np.all(got[2:] == 0)  # not merely small
    assert metrics["grpo/equal_groups"] == 3
    np.testing.assert_allclose(metrics["grpo/equal_share"], 3 / 5)
    same = jnp.full(10, -0.3)
    assert jnp.mean(same) != same[0]  # so their differences are not 0, and their std is not
    got, metrics = grpo.group_advantages(same, same < 0, 10, scale_by_std)
    assert np.all(got == 0) and metrics["grpo/equal_groups"] == 1


def test_an_invalid_row_is_in_no_group():
    noise = jnp.asarray(np.where(VALID, GROUPS, 100.0).reshape(-1))
    got, _ = grpo.group_advantages(noise, jnp.asarray(VALID.reshape(-1)), 4, True)
    np.testing.assert_array_equal(np.asarray(got).reshape(-1, 4), advantages_of(True)[0])


# One group: |e| = 2 of 4, none, 1, all 3 (cut in its explanation), 2 that are not valid.
SPAN_MASK = np.arange(4)[None] < np.array([[4], [3], [2], [3], [4]])
SPAN_REWARDS = np.array(
    [
        [0, 3.0, 0, 5.0],
        [0, 0, -5.0, 0],
        [1.0, -4.0, 0, 0],
        [0, 0, -1.0, 0],
        [9, 9, 9, 9],
    ],
    np.float32,
)
# R(e) of the first, third and fourth: 3, 1, -1; R(r) of the first three: 5, -5, -4
SPAN_PLAIN = [
    [2.0, 2.0, 19 / 3, 19 / 3],
    [-11 / 3, -11 / 3, -11 / 3, 0],
    [0, -8 / 3, 0, 0],
    [-2.0, -2.0, -2.0, 0],
    [0, 0, 0, 0],
]
SPAN_STD = 2.0, 5.507571  # of 3, 1, -1, and sqrt((361 + 121 + 64) / 9 / 2)


@pytest.mark.parametrize("scale_by_std", [True, False])
def test_each_part_of_an_answer_is_judged_among_its_own(scale_by_std):
    config = make_config(scale_by_std=scale_by_std)
    config.sampling.rollouts_per_problem = 5
    rows = np.zeros((5, 9), np.int32)
    ends = SPAN_MASK.sum(axis=1).astype(np.int32)
    start = np.full(5, 5, np.int32)
    zeros = np.zeros(SPAN_MASK.shape, np.float32)
    rollout = Rollout(rows, start, start + ends, SPAN_MASK, zeros, zeros, ends < 0)
    explained = np.array([2, 0, 1, 3, 2], np.int32)
    feedback = Feedback(SPAN_REWARDS, SPAN_MASK, np.arange(5) < 4, explained)
    begun = grpo.begin(config, updates.adv.init_reward_scale(), rollout, feedback)
    expected = np.array(SPAN_PLAIN)
    if scale_by_std:
        opens = np.arange(4)[None] < explained[:, None]
        expected /= np.where(opens, *SPAN_STD)
    np.testing.assert_allclose(begun.experience.advantages, expected, atol=1e-5)
    assert begun.metrics["grpo/equal_groups_explained"] == 0
    stds = [begun.metrics[f"grpo/group_std{x}"] for x in ("_explained", "")]
    np.testing.assert_allclose(stds, SPAN_STD, rtol=1e-6)
    # without an explanation anywhere, what a run of whole programs has
    silent = grpo.begin(
        config, None, rollout, feedback._replace(explained=np.zeros(5, np.int32))
    )
    plain = grpo.begin(config, None, rollout, feedback._replace(explained=None))
    np.testing.assert_array_equal(silent.experience.advantages, plain.experience.advantages)


# A minibatch of two rows by hand. Kept: 3 of 4 tokens, and 2 of 2.
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
KEPT = np.array([[1, 0, 1, 1], [1, 1, 0, 0]], bool)
WILD = 1e60  # whose exponential overflows, out of sight
RATIO = np.array([[1.5, WILD, 1.1, 1.0], [0.5, 1.0, WILD, WILD]])
FAR = 1 / WILD
TO_REFERENCE = np.array([[2.0, FAR, 1.0, 1.0], [1.0, 0.5, FAR, FAR]])  # pi / pi_ref
# A = 2 and -1, bounds 0.8 and 1.28: -2 x 1.28 (held), -2.2, -2, and 0.8 (held), 1
SURROGATE = np.array([[-2.56, 0, -2.2, -2.0], [0.8, 1.0, 0, 0]])
# k3 = 1 / r - 1 + log r
K3 = np.array([[0.193147, 0, 0, 0], [0, 0.306853, 0, 0]])
# d / d log pi of the surrogate is -A r, or 0 where it is held; of k3 it is 1 - 1 / r
SLOPE = np.array([[0.0, 0, -2.2, -2.0], [0, 1.0, 0, 0]])
K3_SLOPE = np.array([[0.5, 0, 0, 0], [0, -1.0, 0, 0]])
# each row's weight over the divisor, by grpo.average and ppo.normaliser
SHARES = {
    ("sequence", "kept"): (1 / 3 / 2, 1 / 2 / 2),
    ("sequence", "completion"): (1 / 4 / 2, 1 / 2 / 2),
    ("token", "kept"): (1 / 5, 1 / 5),
    ("token", "completion"): (1 / 6, 1 / 6),
    ("constant", "kept"): (1 / 8, 1 / 8),
}


def by_hand():
    new = np.log(np.full((2, 4), 0.1))
    advantages = np.where(MASK, np.array([[2.0], [-1.0]]), 0.0)
    arrays = [new - np.log(RATIO), new - np.log(TO_REFERENCE), advantages]
    arrays = [jnp.asarray(x, jnp.float32) for x in (new, *arrays)]
    tokens, length = jnp.zeros((2, 6), jnp.int32), jnp.array([6, 4])
    experience = Experience(
        tokens=tokens,
        prompt_length=jnp.array([2, 2]),
        length=length,
        mask=jnp.asarray(MASK),
        loss_mask=jnp.asarray(KEPT),
        old_logprobs=arrays[1],
        ref_logprobs=arrays[2],
        old_values=None,
        advantages=arrays[3],
        returns=None,
    )
    return arrays[0], experience


@pytest.mark.parametrize(("average", "normaliser"), SHARES)
def test_loss_and_gradient_by_hand(average, normaliser):
    config = make_config(
        clip_high=0.28,
        kl_coef=0.1,
        entropy_coef=0.2,
        average=average,
        normaliser=normaliser,
    )
    new, experience = by_hand()
    number = grpo.divisors(config, experience)

    def loss(logprobs):
        current = Current(logprobs, 0.5 * logprobs, values=None, hidden=None)
        return grpo.loss(config, current, experience, number)

    (got, (sums, *_)), gradient = jax.value_and_grad(loss, has_aux=True)(new)
    shares = np.array(SHARES[average, normaliser])[:, None]
    entropy = np.where(KEPT, 0.5 * np.asarray(new), 0)
    expected = (SURROGATE + 0.1 * K3 - 0.2 * entropy) * shares
    np.testing.assert_allclose(got, expected.sum(), rtol=1e-5)
    slopes = (SLOPE + 0.1 * K3_SLOPE - 0.2 * 0.5 * KEPT) * shares
    np.testing.assert_allclose(gradient, slopes, atol=1e-6)
    assert np.all(np.asarray(gradient)[~KEPT] == 0)  # FGO's tokens, and the padding
    assert sums["clip_fraction"].total == 2 and sums["clip_fraction"].count == 5
    np.testing.assert_allclose(sums["kl_loss"].total, K3.sum(), rtol=1e-5)


def test_an_empty_minibatch_is_divided_by_1():
    _, experience = by_hand()
    nothing = experience._replace(mask=experience.mask & 0, loss_mask=experience.mask & 0)
    for average, normaliser in SHARES:
        config = make_config(average=average, normaliser=normaliser)
        assert grpo.divisors(config, nothing) == 1
        assert np.all(np.isfinite(grpo.row_weights(config, nothing)))


@functools.cache
def programs(**fields):
    """Jitted steps, one compilation for each config that the tests use."""
    config = make_config(**fields)
    noise = iter(jax.random.split(jax.random.key(5), 100))
    reference = jax.tree.map(
        lambda x: x + 0.02 * jax.random.normal(next(noise), x.shape), kit.tiny_params()
    )

    def experience(state, rollout, feedback):
        where = (config, state, reference, rollout, feedback, ONE_DEVICE)
        return updates.make_experience(grpo.GRPO, *where)

    def update(state, experience):
        return updates.update(grpo.GRPO, config, state, experience, ONE_DEVICE)

    return config, jax.jit(experience), jax.jit(update)


@functools.cache
def iteration(**fields):
    """State, experience, metrics, state after, metrics of the update."""
    config, make, update = programs(**fields)
    state = updates.init_state(grpo.GRPO, config, kit.tiny_params())
    experience, scale, metrics = make(state, *kit.rollout_batch())
    jax.tree.map(np.testing.assert_array_equal, scale, state.reward_scale)
    return jax.device_get((state, experience, metrics, *update(state, experience)))


def differs(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(np.any(np.asarray(x) != np.asarray(y)) for x, y in leaves)


def test_a_state_has_no_critic():
    state, experience, metrics, after, learned = iteration()
    assert state.critic is after.critic is state.critic_opt is after.critic_opt is None
    assert experience.old_values is experience.returns is None
    named = {name for name in metrics | learned if "value" in name or "critic" in name}
    assert not named | ({"rows", "return", "explained_variance"} & set(metrics))
    moments = [x for x in jax.tree.leaves(after.actor_opt) if x.ndim]
    assert len(moments) == 2 * len(jax.tree.leaves(state.actor))


def test_each_token_has_its_rows_advantage_inside_the_mask():
    rollout, feedback = kit.rollout_batch()
    _, got, metrics, *_ = iteration()
    mask = rollout.mask & feedback.valid[:, None]
    np.testing.assert_array_equal(got.mask, mask)
    np.testing.assert_array_equal(got.loss_mask, mask & feedback.executed)
    rewards = feedback.rewards.sum(axis=1)
    rows, _ = grpo.group_advantages(
        jnp.asarray(rewards), jnp.asarray(feedback.valid), 4, True
    )
    expected = np.where(mask, np.asarray(rows)[:, None], 0)
    np.testing.assert_allclose(got.advantages, expected, atol=1e-6)
    assert not np.any(got.advantages[3])  # the invalid row
    assert np.all(got.old_logprobs[~mask] == 0) and np.all(got.ref_logprobs[~mask] == 0)
    assert metrics["kl"] > 0.01


def test_an_update_moves_all_of_the_actor():
    state, _, _, after, learned = iteration()
    assert learned["ratio_max_first"] == pytest.approx(1, abs=1e-5)
    assert learned["ratio_max"] > 1.001 and learned["nonfinite"] == 0
    for old, new in zip(*(jax.tree.leaves(s.actor) for s in (state, after)), strict=True):
        assert np.any(old != new)
    assert after.step == 1


def test_what_lies_outside_the_loss_mask_does_not_move_the_actor():
    state, experience, _, after, _ = iteration()
    _, _, update = programs()
    noise = np.random.default_rng(0).normal(size=experience.mask.shape).astype(np.float32)
    names = ("advantages", "old_logprobs", "ref_logprobs")
    for keep, moves in ((experience.loss_mask, False), (~experience.loss_mask, True)):
        changed = {n: np.where(keep, getattr(experience, n), noise) for n in names}
        other, _ = update(state, experience._replace(**changed))
        assert differs(other.actor, after.actor) is moves


def test_a_batch_without_a_kept_token_leaves_all_but_the_step_untouched():
    state, experience, *_ = iteration()
    _, _, update = programs()
    nothing = np.zeros_like(experience.loss_mask)
    after, metrics = update(state, experience._replace(loss_mask=nothing))
    assert not differs(after[1:], state[1:])
    assert after.step == state.step + 1 and metrics["nonfinite"] == 0


def test_a_gradient_that_is_not_finite_is_counted():
    state, experience, *_ = iteration()
    _, _, update = programs()
    broken = experience.advantages.copy()
    broken[tuple(np.argwhere(experience.loss_mask)[0])] = np.nan
    _, metrics = update(state, experience._replace(advantages=broken))
    assert metrics["nonfinite"] >= 1


@pytest.mark.slow  # the same lines of `updates` that test_ppo runs
def test_micro_batches_trimmed_to_their_width_change_nothing():
    """A mean per sequence: weights are the rows' own, the divisor is the minibatch's."""
    state, plain, _, after, learned = iteration()
    _, _, update = programs(num_micro_batches=4, widths=(12, 18))
    other, metrics = update(state, plain)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), other.actor, after.actor
    )
    for name in ("policy_loss", "kl_loss", "entropy", "actor_grad_norm"):
        np.testing.assert_allclose(metrics[name], learned[name], rtol=1e-4)


@pytest.mark.slow  # test_lora does it with PPO
def test_adapters_alone_are_trained():
    config = make_config()
    config.model.lora_rank = 4
    state = updates.init_state(grpo.GRPO, config, kit.tiny_params())

    @jax.jit
    def run(state, rollout, feedback):
        where = (config, state, {}, rollout, feedback, ONE_DEVICE)
        experience, _, looked = updates.make_experience(grpo.GRPO, *where)
        return looked, updates.update(grpo.GRPO, config, state, experience, ONE_DEVICE)

    looked, (after, _) = run(state, *kit.rollout_batch())
    jax.tree.map(np.testing.assert_array_equal, lora.strip(after.actor), kit.tiny_params())
    assert differs(lora.split(after.actor)[0], lora.split(state.actor)[0])
    # the base is the reference, but for how the compiler rounds two programs
    assert looked["kl"] == pytest.approx(0, abs=1e-7)


def test_it_learns_a_bandit():
    """One token per row; 1 for the lower half of the vocabulary, else -1."""
    config = make_config(kl_coef=0.0, num_minibatches=1)
    config.ppo.actor.learning_rate = 2e-2
    rollout = jax.tree.map(jnp.asarray, kit.rollout_batch()[0])
    mask = np.zeros_like(rollout.mask)
    mask[:, 0] = True

    @jax.jit
    def play(state, key, rollout):
        start = rollout.prompt_length
        where = (rollout.tokens, start, kit.COLUMNS)
        logits = kit.completion_logits(config.model, state.actor, *where)[:, 0]
        log_pi = kit.log_policy(logits, config.sampling.temperature)
        chosen = jax.random.categorical(key, log_pi)
        tokens = rollout.tokens.at[np.arange(kit.ROWS), start].set(chosen)
        rewards = jnp.where(chosen < 152, 1.0, -1.0)[:, None] * mask
        zeros = jnp.zeros_like(rewards)
        played = Rollout(tokens, start, start + 1, mask, zeros, zeros, start < 0)
        feedback = Feedback(rewards, mask, start > 0)
        experience, _, _ = updates.make_experience(
            grpo.GRPO, config, state, kit.tiny_params(), played, feedback, ONE_DEVICE
        )
        state, _ = updates.update(grpo.GRPO, config, state, experience, ONE_DEVICE)
        return state, jnp.exp(log_pi)[:, :152].sum(axis=1).mean()

    state = updates.init_state(grpo.GRPO, config, kit.tiny_params())
    shares = []
    for key in jax.random.split(jax.random.key(0), 30):
        state, share = play(state, key, rollout)
        shares.append(float(share))
    assert shares[0] < 0.7 and shares[-1] > 0.95, shares


@functools.cache
def on_mesh(shape):
    config = make_config(num_minibatches=1)
    config.ppo.actor.eps = 1e-3  # see test_sharding
    devices = jax.devices()[: int(np.prod(shape))]
    steps = Steps(config, sharding.make_mesh(MeshConfig(*shape), devices), (kit.EOS,))
    actor = steps.place_params(kit.tiny_params())
    state = steps.init_state(actor)
    experience, state, looked = steps.make_experience(state, actor, *kit.rollout_batch())
    state, learned = steps.update(state, experience)
    return sharding.to_host((looked, learned, state.actor))


@pytest.mark.slow  # as in test_sharding.py
def test_several_devices_do_what_one_does():
    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

    jax.tree.map(close, on_mesh((2, 2, 2)), on_mesh((1, 1, 1)))


FLAGS = ["--algorithm", "grpo", "--run.save_every", "1", "--evaluation.every", "0"]
FLAGS += ["--evaluation.test_problems", "0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grpo") / "run"
    assert run_train(folder, *FLAGS, "--run.total_steps", "2") == 0
    return folder


@pytest.mark.slow  # by the loop of `train`, as in test_train
def test_a_resumed_run_is_the_uninterrupted_one(run, tmp_path):
    folder = tmp_path / "resumed"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints" / "2")  # as if it had ended after the first
    (folder / "rollouts" / "1.jsonl").unlink()
    assert run_train(folder, *FLAGS, "--run.total_steps", "2", "--run.resume") == 0
    assert metrics_of(folder) == metrics_of(run)
    assert rollouts_of(folder) == rollouts_of(run)
    (state, *_), (other, *_) = (saved(path, 2) for path in (folder, run))
    assert state.critic is None and int(state.step) == 2
    jax.tree.map(np.testing.assert_array_equal, state, other)
    reference = restore.restore(str(run), None, before=True).actor
    assert differs(state.actor, reference)


def test_a_run_tells_of_groups_and_of_no_critic(run):
    rows = metrics_of(run)
    assert len(rows) == 2
    for row in rows:
        assert 0 <= row["grpo/equal_share"] <= 1 and "value_loss" not in row
        assert not [name for name in row if name.startswith("explained_variance")]
    drawn = [json.loads(line) for line in rollouts_of(run)["0.jsonl"].splitlines()]
    assert all("values" not in row and row["advantages"] for row in drawn)
    by_group = [drawn[i : i + 4] for i in range(0, 16, 4)]
    for group in by_group:
        assert len({(row["problem"], row["stage"], row["head"]) for row in group}) == 1
        firsts = [row["advantages"][0] for row in group]
        assert sum(firsts) == pytest.approx(0, abs=1e-5)


def test_a_run_without_a_critic_is_exported_without_a_value_head(run, tmp_path):
    to = tmp_path / "exported"
    assert main(["export", str(run), "--out", str(to)]) == 0
    assert not list(to.glob("value_head*"))
    _, params = weights.load_checkpoint(to, np.float32)
    actor = sharding.to_host(restore.restore(str(run), None, before=False).actor)
    jax.tree.map(np.testing.assert_array_equal, params, actor)


def test_a_group_of_one_is_refused():
    config = make_config()
    config.sampling.rollouts_per_problem, config.ppo.num_minibatches = 1, 1
    with pytest.raises(ConfigError, match=r"rollouts_per_problem: .* 2 .*algorithm=grpo"):
        config.validate()


def test_the_defaults_are_the_papers():
    """arXiv:2402.03300, section 4.2 and equation 3; StepCoder itself stays PPO."""
    assert GRPOConfig() == GRPOConfig(
        estimator="grpo",
        policy_loss="clipped",
        scale_by_std=True,
        clip_low=0.2,
        clip_high=0.2,
        average="sequence",
        kl_coef=0.04,
    )
    assert kit.tiny_config().algorithm == "ppo"
