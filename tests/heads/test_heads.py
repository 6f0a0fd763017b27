"""Heads by hand: pooling with a mask, q_t, pairs, calibration, samples, folders."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.config import ConfigError
from stepcoder_jax.feedback.sft_rows import Example
from stepcoder_jax.heads import folder, measures, samples
from stepcoder_jax.heads.samples import Sample, make_batch
from stepcoder_jax.heads.training import Learning, learn, logits
from stepcoder_jax.models import heads
from stepcoder_jax.records import Mode, Problem
from tests.kit import tiny_model, tiny_params


def by_hand(kernel, bias):
    """A head that reads the first units of hidden states as they are, where above 0."""
    outer = np.zeros((heads.WIDTH, len(bias)), np.float32)
    outer[: len(kernel)] = kernel
    inner = {"kernel": np.eye(3, heads.WIDTH), "bias": np.zeros(heads.WIDTH)}
    return {"inner": inner, "outer": {"kernel": outer, "bias": np.array(bias)}}


HEAD = by_hand([[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, -1]], [0.0, 0.0, 0.5, 0.0])
HIDDEN = jnp.array([[[9, 9, 9], [1, 0, 0], [0, 1, 3], [-1, 5, 0]]], jnp.float32)
MASK = jnp.array([[False, True, True, False]])


def test_a_program_is_pooled_over_its_own_tokens():
    """Logits of its tokens: (1, 0, .5, 0) and (0, 2, .5, -3); hidden max: (1, 1, 3)."""
    found = heads.outcome_logits(HEAD, HIDDEN, MASK, "logits")
    np.testing.assert_allclose(found, [[1, 2, 0.5, 0]])
    found = heads.outcome_logits(HEAD, HIDDEN, MASK, "hidden")
    np.testing.assert_allclose(found, [[1, 2, 0.5, -3]])


def test_token_values_are_the_chance_of_what_came():
    found = heads.token_values(HEAD, HIDDEN, jnp.array([1]))
    first = 1 / (math.e + 1 + math.exp(0.5) + 1)
    second = math.exp(2) / (1 + math.exp(2) + math.exp(0.5) + math.exp(-3))
    np.testing.assert_allclose(found[0, 1:3], [first, second], rtol=1e-6)


def test_a_program_is_scored_at_its_last_token():
    head = by_hand([[1], [2], [-1]], [0.25])
    np.testing.assert_allclose(heads.program_scores(head, HIDDEN, MASK), [-0.75])


def test_a_new_head_prefers_nothing():
    head = heads.init_head("outcome", 3, jax.random.key(0))
    chances = jax.nn.softmax(heads.outcome_logits(head, HIDDEN, MASK, "logits"))
    np.testing.assert_allclose(chances, 0.25)


def test_calibration_and_accuracy_by_hand():
    """Bins: 0.9 right and 0.9 wrong, |1 - 1.8| / 4; 0.6 right twice, |2 - 1.2| / 4."""
    chances = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = [0, 1, 1, 1]
    found = measures.measure(chances, labels, ["a", "b", "b", "b"])
    assert found == pytest.approx(
        {
            **{"samples": 4, "accuracy": 0.75, "accuracy/a": 1, "samples/a": 1},
            **{"accuracy/b": 2 / 3, "samples/b": 3, "majority": 0.75, "ece": 0.4},
        }
    )
    # one in each end of a bin: 0.5 belongs to the fifth, not to the sixth
    edge = np.array([[0.5, 0.5], [0.55, 0.45]])
    assert measures.calibration_error(edge, np.array([0, 0])) == pytest.approx(0.475)
    assert math.isnan(measures.calibration_error(np.zeros((0, 2)), np.zeros(0, int)))


PROBLEM = Problem("p", "", "", "h\nright\n", None, Mode.STDIN_MAIN, (), "easy")


def encode(task, code):
    """A token for each letter; what is long does not fit."""
    ids = [ord(letter) for letter in task.head + code]
    return None if len(code) > 9 else Example(ids, len(task.head))


def row(completion, verdict, **more):
    told = {"problem": "p", "head": "h\n", "completion": completion, "stage": 1}
    return told | {"verdict": verdict, "valid": True} | more


ROWS = [
    row("a", "timeout"),
    row("b", "wrong"),
    row("right", "pass"),
    row("c", "infra", valid=False),
    row("d", "wrong", turns=[{}]),
    row("e", "wrong", problem="q"),
    row("a long one", "wrong"),
    row("f", "compile", head="x\n"),  # the solution does not go on there
]


def test_outcomes_of_judged_programs():
    found, left_out = samples.read_samples(ROWS, {"p": PROBLEM}, encode, "outcome")
    assert left_out == 4
    # the canonical solution is one that passes, once
    told = [("a", 1), ("right", 3), ("b", 2), ("right", 3), ("f", 0)]
    assert [("".join(map(chr, x.programs[0].ids[2:])), x.label) for x in found] == told
    assert [x.group for x in found] == [heads.OUTCOMES[label] for _, label in told]


def test_pairs_of_a_written_and_a_sampled_program():
    found, left_out = samples.read_samples(ROWS, {"p": PROBLEM}, encode, "pair")
    assert left_out == 6  # also the one that is the written one, and the strange head
    assert [x.group for x in found] == ["runtime", "failed"]
    written, sampled = found[0].programs
    assert written.ids == [ord(x) for x in "h\nright"] and sampled.ids[2:] == [ord("a")]


def test_a_problem_is_held_out_whole():
    many = [Sample((Example([1], 0),), 0, "x", str(i % 50)) for i in range(200)]
    learnt, held_out = samples.split(many)
    names = {x.problem for x in learnt}, {x.problem for x in held_out}
    assert not names[0] & names[1] and 4 <= len(names[1]) <= 18
    assert len(learnt) + len(held_out) == 200


def fake(count, kind="outcome"):
    """Samples whose class is their first token's."""
    rng = np.random.default_rng(0)
    found = []
    for place in range(count):
        label = place % 4
        ids = [5, *rng.integers(20, 300, 3), 10 + label, *rng.integers(20, 300, 2)]
        example = Example([int(x) for x in ids], 4)
        found.append(Sample((example,), label, heads.OUTCOMES[label], str(place)))
    if kind == "pair":
        one, other = found[0::4], found[1::4]
        pairs = zip(one, other)
        found = [
            Sample((a.programs[0], b.programs[0]), 0, b.group, a.problem) for a, b in pairs
        ]
    return found


def test_a_batch_is_filled_up_with_what_weighs_nothing():
    batch = make_batch(fake(3), 4, 64)
    assert batch.weights.tolist() == [1, 1, 1, 0] and batch.tokens.shape == (4, 64)
    assert np.flatnonzero(batch.mask[0]).tolist() == [4, 5, 6]
    pair = make_batch(fake(8, "pair"), 3, 64)
    assert pair.tokens.shape == (6, 64) and pair.labels.tolist() == [0, 0, 0]


def test_padding_and_its_width_change_no_logit():
    head = heads.init_head("outcome", 32, jax.random.key(1))
    head["outer"]["kernel"] = jax.random.normal(jax.random.key(2), (heads.WIDTH, 4))
    found = [
        logits(
            tiny_model(max_positions=128),
            "outcome",
            pool,
            tiny_params()["trunk"],
            head,
            make_batch(fake(2), size, width),
        )[:2]
        for pool in ("logits", "hidden")
        for size, width in ((2, 8), (3, 16))
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[2], found[3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["outcome", "pair"])
def test_a_head_learns_what_hidden_states_tell(kind):
    asked = Learning(kind, epochs=4, learning_rate=0.01)
    model = tiny_model()
    found = learn(model, tiny_params()["trunk"], fake(96, kind), fake(16, kind), asked)
    assert len(found.losses) == 4 and min(found.losses) < 0.5 * math.log(
        4 if kind == "outcome" else 2
    )
    labels = [x.label for x in fake(16, kind)]
    assert (found.chances.argmax(axis=1) == labels).mean() > 0.8
    # the head of the best epoch is the one that was measured
    batch = make_batch(fake(16, kind), 16, 64)
    again = logits(model, kind, "logits", tiny_params()["trunk"], found.head, batch)
    again = jax.nn.softmax(again[: len(labels)])
    np.testing.assert_allclose(again, found.chances, rtol=1e-4, atol=1e-5)


def kept(tmp_path, **more):
    head = heads.init_head("outcome", 32, jax.random.key(0))
    found = folder.Head("outcome", "logits", head, "f" * 64, {"accuracy": 0.5})
    folder.save(tmp_path, found._replace(**more))
    return head


def wanted(**more):
    return folder.Wanted("outcome", "f" * 64, 32, "coderl.critic")._replace(**more)


def test_a_head_comes_back(tmp_path):
    head = kept(tmp_path)
    back = folder.load(tmp_path, wanted())
    assert (back.kind, back.pool, back.measured) == ("outcome", "logits", {"accuracy": 0.5})
    jax.tree.map(np.testing.assert_array_equal, back.params, jax.device_get(head))


def test_a_run_keeps_the_head_that_it_began_with(tmp_path):
    source, own = tmp_path / "source", tmp_path / "run" / "critic"
    source.mkdir()
    head = kept(source)
    for _ in range(2):
        back = folder.keep(source, own, wanted())
        jax.tree.map(np.testing.assert_array_equal, back.params, jax.device_get(head))
        for path in source.iterdir():
            path.write_text("another")
    assert [path.name for path in own.parent.iterdir()] == ["critic"]


def test_a_head_of_another_model_is_refused(tmp_path):
    kept(tmp_path)
    for change, why in (
        ({"model": "0" * 64}, r".* reads the model f{12}, this one is 0{12}"),
        ({"hidden_size": 64}, ".* other shapes"),
        ({"kind": "pair"}, "expected a head of kind pair, .* has one of kind outcome"),
    ):
        with pytest.raises(ConfigError, match=f"^coderl.critic: {why}"):
            folder.load(tmp_path, wanted(**change))
    record = json.loads((tmp_path / "head.json").read_text())
    bad = [record | {"kind": "x"}, {"kind": 1}, record | {"pool": "x"}]
    for broken in ("{", "[]", *map(json.dumps, bad)):
        (tmp_path / "head.json").write_text(broken)
        with pytest.raises(ConfigError, match=r"^coderl.critic: .* holds no head") as told:
            folder.load(tmp_path, wanted())
        assert "\n" not in str(told.value)
    with pytest.raises(ConfigError, match="holds no head"):
        folder.load(tmp_path / "nowhere", wanted())


def test_a_head_that_is_not_finite_is_refused(tmp_path):
    head = heads.init_head("outcome", 32, jax.random.key(0))
    head["outer"]["bias"] = jnp.full(4, jnp.nan)
    kept(tmp_path, params=head)
    with pytest.raises(ConfigError, match="not finite"):
        folder.load(tmp_path, wanted())
