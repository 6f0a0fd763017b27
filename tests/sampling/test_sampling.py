import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.learning import scoring
from stepcoder_jax.sampling import slots
from stepcoder_jax.sampling.drawing import Truncation, draw_tokens, invert_cdf, kept_floor
from tests import kit

PAPER = Truncation(0.8, 0.9)


@functools.cache
def sampler(truncation=PAPER, **sizes):
    return kit.make_sampler(kit.tiny_model(), truncation, **sizes)


@functools.cache
def eos_params():
    """Parameters that end a row now and then: the embedding of EOS is made longer."""
    params = jax.tree.map(lambda x: x, kit.tiny_params())
    embed = params["trunk"]["embed_tokens"]
    embed["embedding"] = embed["embedding"].at[kit.EOS].multiply(8.0)
    return params


def draw(batch, step=0, find_stop=None, pieces=None):
    return kit.complete(pieces or sampler(), eos_params(), batch, step, find_stop)


@functools.cache
def rollout():
    return draw(kit.prompt_batch())


def completion(rollout, row):
    start, stop = rollout.prompt_length[row], rollout.length[row]
    return rollout.tokens[row, start:stop].tolist()


def check_laws(rollout, batch):
    count = rollout.length - rollout.prompt_length
    columns = np.arange(kit.COLUMNS)[None]
    np.testing.assert_array_equal(rollout.mask, columns < count[:, None])
    for array in (rollout.logprobs, rollout.kept_mass):
        assert np.all(array[~rollout.mask] == 0)
        assert np.all(array[rollout.mask] != 0)
    inside = np.arange(rollout.tokens.shape[1])[None] < rollout.length[:, None]
    assert np.all(rollout.tokens[~inside] == 0)
    for row, length in enumerate(batch.prompt_length):
        np.testing.assert_array_equal(
            rollout.tokens[row, :length], batch.tokens[row, :length]
        )


def test_a_rollout_keeps_the_laws_and_ends_at_eos():
    got = rollout()
    check_laws(got, kit.prompt_batch())
    ends = [completion(got, row).count(kit.EOS) for row in range(kit.ROWS)]
    assert 3 < sum(ends) < kit.ROWS  # some rows end, some are truncated
    for row, count in enumerate(ends):
        assert count == (not got.truncated[row])
        if count:
            assert completion(got, row)[-1] == kit.EOS
        else:
            assert got.mask[row].all()


def test_the_samplers_logprobs_are_those_of_the_policy():
    got = rollout()
    logits = kit.completion_logits(
        kit.tiny_model(), eos_params(), got.tokens, got.prompt_length, kit.COLUMNS
    )
    log_pi = kit.log_policy(logits, 0.8)
    chosen = scoring.completion_tokens(got.tokens, got.prompt_length, kit.COLUMNS)
    expected = np.where(got.mask, kit.token_logprobs(log_pi, chosen), 0)
    np.testing.assert_allclose(got.logprobs, expected, atol=1e-4)
    assert np.all(got.kept_mass[got.mask] >= 0.9 - 1e-5)


def test_neither_batch_size_nor_order_changes_a_completion():
    batch = kit.prompt_batch()
    whole = rollout()
    order = np.array([9, 2, 15, 4])
    part = draw(type(batch)(*(x[order] for x in batch)))
    for row, original in enumerate(order):
        assert completion(part, row) == completion(whole, original)


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_slots": 3, "num_prompts": 1, "chunk": 4},
        {"num_slots": 8, "num_prompts": 3, "chunk": 7},
        *(
            pytest.param(sizes, marks=pytest.mark.slow)
            for sizes in (
                {"num_slots": 5, "num_prompts": 2, "chunk": 1},
                {"num_slots": 24, "num_prompts": 4, "chunk": 16},
            )
        ),
    ],
)
def test_slots_chunks_and_refills_change_no_completion(sizes):
    batch, whole = kit.prompt_batch(), rollout()
    got = draw(batch, pieces=sampler(**sizes))
    for name in ("tokens", "length", "mask", "truncated"):
        np.testing.assert_array_equal(getattr(got, name), getattr(whole, name))
    np.testing.assert_allclose(got.logprobs, whole.logprobs, atol=1e-5)
    np.testing.assert_allclose(got.kept_mass, whole.kept_mass, atol=1e-5)


def test_finished_rollouts_hand_their_slots_over_and_leave_before_the_others():
    pieces, steps = sampler(num_slots=4, num_prompts=1, chunk=2), []

    def advance(*args):
        state, chunk = pieces.advance(*args)
        steps.append(int(chunk.drawn.max()))
        return state, chunk

    def find_stop(tokens):  # about half of the rows are short
        return 1 if tokens[0] % 2 else None

    batch = kit.prompt_batch()
    watched = pieces._replace(advance=advance)
    key = jax.random.fold_in(jax.random.key(0), 0)
    chunks = list(slots.stream(watched, eos_params(), batch, key, find_stop))
    done = [completion for chunk in chunks for completion in chunk]
    rows = [completion.row for completion in done]
    assert sorted(rows) == list(range(kit.ROWS))
    assert rows != sorted(rows) and len(chunks) > 3
    lengths = np.array([len(x.tokens) for x in sorted(done, key=lambda x: x.row)])
    # without refill every four rollouts take as many tokens as their longest
    assert lengths.min() == 1 and lengths.max() == kit.COLUMNS
    assert sum(steps) < lengths.reshape(4, 4).max(axis=1).sum()


def test_a_prompt_is_read_once_for_all_its_rollouts():
    pieces, read = sampler(num_slots=4, num_prompts=1, chunk=2), []
    watched = pieces._replace(
        read_prompts=lambda *args: read.append(args[2]) or pieces.read_prompts(*args)
    )
    batch = kit.prompt_batch()
    draw(batch, pieces=watched)
    np.testing.assert_array_equal(np.concatenate(read), batch.prompt_length[::4])


def test_the_cache_is_as_wide_as_needed_and_its_widths_are_few():
    assert [slots.width_for(need, 384) for need in (1, 96, 97, 384)] == [96, 96, 192, 384]
    assert slots.width_for(385, 385) >= 385
    pieces, widths = sampler(chunk=2), []
    watched = pieces._replace(
        resize=lambda state, width: widths.append(width) or pieces.resize(state, width)
    )
    draw(kit.prompt_batch(), pieces=watched)
    assert widths == sorted(widths) and len(widths) >= 1


def test_steps_and_rollouts_of_one_prompt_differ():
    batch = kit.prompt_batch()
    other = draw(batch, step=1)
    assert np.any(other.tokens != rollout().tokens)
    np.testing.assert_array_equal(draw(batch).tokens, rollout().tokens)
    four = {tuple(completion(rollout(), row)) for row in range(4)}
    assert len(four) == 4


def test_greedy_takes_the_most_probable_token_and_ignores_the_key():
    batch = kit.prompt_batch()
    pieces = sampler(Truncation(0.0))
    one, two = (draw(batch, step, pieces=pieces) for step in (0, 1))
    np.testing.assert_array_equal(one.tokens, two.tokens)
    logits = kit.completion_logits(
        kit.tiny_model(), eos_params(), one.tokens, one.prompt_length, kit.COLUMNS
    )
    chosen = scoring.completion_tokens(one.tokens, one.prompt_length, kit.COLUMNS)
    best = np.argmax(logits, axis=-1)
    np.testing.assert_array_equal(chosen[one.mask], best[one.mask])


def test_a_stop_string_cuts_after_its_last_token():
    whole = rollout()
    row = int(np.argmax(whole.truncated))
    stop = completion(whole, row)[5]  # found in the second chunk, after a look at 4

    def find_stop(tokens):
        return tokens.index(stop) + 1 if stop in tokens else None

    cut = draw(kit.prompt_batch(), find_stop=find_stop)
    check_laws(cut, kit.prompt_batch())
    for r in range(kit.ROWS):
        full = completion(whole, r)
        expected = full[: full.index(stop) + 1] if stop in full else full
        assert completion(cut, r) == expected
        assert cut.truncated[r] == (whole.truncated[r] and stop not in full)


def test_a_stop_string_before_eos_in_one_chunk_wins():
    whole = rollout()
    ended = [r for r in range(kit.ROWS) if not whole.truncated[r]]
    row = next(r for r in ended if len(completion(whole, r)) >= 2)
    keep = len(completion(whole, row)) - 1
    seen = completion(whole, row)

    def find_stop(tokens):
        return keep if tokens == seen else None

    cut = draw(kit.prompt_batch(), find_stop=find_stop)
    assert completion(cut, row) == seen[:keep]


def test_padding_rows_are_never_continued():
    batch = kit.prompt_batch()
    five = batch._replace(prompt_length=np.where(np.arange(16) < 5, batch.prompt_length, 0))
    got = draw(five)
    assert not np.any(got.mask[5:]) and not np.any(got.truncated[5:])
    for row in range(5):
        assert completion(got, row) == completion(rollout(), row)
    nothing = five._replace(prompt_length=0 * batch.prompt_length)
    assert not np.any(draw(nothing).mask)


def random_probs(rows, size, spread=3):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(rows, size)).astype(np.float32) * spread
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def kept_by_sorting(probs, truncation):
    order = np.argsort(-probs)
    before = np.cumsum(probs[order]) - probs[order]
    keep = probs[order] >= truncation.min_p * probs.max()
    if truncation.top_p < 1:
        keep &= before < truncation.top_p
    if truncation.top_k:
        keep &= np.arange(len(order)) < truncation.top_k
    return np.sort(order[keep])


@pytest.mark.parametrize(
    "truncation",
    [
        Truncation(1.0, 0.01),
        Truncation(1.0, 0.5),
        Truncation(1.0, 0.9),
        Truncation(1.0, 0.999),
        Truncation(1.0, top_k=1),
        Truncation(1.0, top_k=7),
        Truncation(1.0, top_k=1000),
        Truncation(1.0, min_p=0.1),
        Truncation(1.0, 0.9, 5, 0.02),
        Truncation(1.0, 0.7, 30, 0.001),
    ],
)
def test_what_is_kept_is_what_sorting_keeps(truncation):
    probs = random_probs(50, 40)
    floor = kept_floor(jnp.asarray(probs), truncation)
    for row in range(50):
        kept = np.flatnonzero(probs[row] >= floor[row])
        np.testing.assert_array_equal(kept, kept_by_sorting(probs[row], truncation))


def test_the_nucleus_by_hand():
    # 0.5 + 0.3 >= 0.8 - eps: the third token is needed only above that
    probs = jnp.array([[0.2, 0.5, 0.3]])
    assert kept_floor(probs, Truncation(1.0, 0.75))[0, 0] == jnp.float32(0.3)
    assert kept_floor(probs, Truncation(1.0, 0.5))[0, 0] == jnp.float32(0.5)
    assert kept_floor(probs, Truncation(1.0, 0.85))[0, 0] == jnp.float32(0.2)
    assert kept_floor(probs, Truncation(1.0, top_k=2))[0, 0] == jnp.float32(0.3)
    assert kept_floor(probs, Truncation(1.0, min_p=0.5))[0, 0] == jnp.float32(0.25)
    tied = jnp.array([[0.25, 0.25, 0.25, 0.25]])
    assert kept_floor(tied, Truncation(1.0, top_k=1))[0, 0] == jnp.float32(0.25)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_the_inverse_cdf_is_that_of_one_running_sum(size):
    probs = random_probs(200, size)
    probs[:, ::3] *= np.arange(200)[:, None] % 2  # every other row has zeros
    probs[:, 0] += 1e-3
    uniform = np.random.default_rng(1).random(200).astype(np.float32)
    token, total = invert_cdf(jnp.asarray(probs), jnp.asarray(uniform))
    np.testing.assert_allclose(total, probs.sum(-1), rtol=1e-5)
    exact = np.cumsum(probs.astype(np.float64), axis=-1)
    target = uniform * exact[:, -1]
    above = np.take_along_axis(exact, np.asarray(token)[:, None], -1)[:, 0]
    below = above - np.take_along_axis(probs, np.asarray(token)[:, None], -1)[:, 0]
    assert np.all(target < above + 1e-5) and np.all(target > below - 1e-5)
    assert np.all(np.take_along_axis(probs, np.asarray(token)[:, None], -1) > 0)


def test_draws_follow_the_truncated_distribution():
    logits = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))
    count = 4000
    uniform = (jnp.arange(count) + 0.5) / count  # a grid: the counts are exact
    many = jnp.broadcast_to(logits, (count, 4))
    token, logprob, mass = draw_tokens(many, uniform, Truncation(1.0, 0.65))
    np.testing.assert_allclose(mass, 0.7, rtol=1e-5)
    shares = np.bincount(token, minlength=4) / count
    np.testing.assert_allclose(shares, [4 / 7, 3 / 7, 0, 0], atol=1e-3)
    np.testing.assert_allclose(logprob, logits[token], rtol=1e-5)  # over all four tokens
    sharp, *_ = draw_tokens(many, uniform, Truncation(0.5))
    squares = np.array([16, 9, 4, 1]) / 30
    np.testing.assert_allclose(np.bincount(sharp) / count, squares, atol=1e-3)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval_draw_kept_tokens(uniform):
    logits = jnp.array([[-jnp.inf, 0.0, 1.0, -30.0, -jnp.inf]])
    token, *_ = draw_tokens(logits, jnp.array([uniform]), Truncation(1.0, 0.95))
    assert token[0] in (1, 2)
