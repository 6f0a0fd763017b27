"""What heads say of a run's programs: at each token, of each pair; by the plain model."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.config import MeshConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.heads import HeadReader
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.feedback.sft_rows import Example
from stepcoder_jax.heads import asking
from stepcoder_jax.heads.folder import Head
from stepcoder_jax.models import heads, policy
from stepcoder_jax.pytrees import Rollout
from stepcoder_jax.records import Program, Report, Task, Verdict
from stepcoder_jax.strategies.driving import Value, Valued
from tests import kit
from tests.feedback.kit import problem

V = Verdict


def head_of(kind):
    head = heads.init_head(kind, 32, jax.random.key(0))
    shape = head["outer"]["kernel"].shape
    head["outer"]["kernel"] = jax.random.normal(jax.random.key(1), shape)
    return Head(kind, "logits", jax.device_get(head), "", {})


@pytest.fixture(scope="module")
def reader():
    config = kit.tiny_config()
    config.ppo.num_micro_batches = 2  # so that four rows are read at a time
    steps = Steps(config, sharding.make_mesh(MeshConfig(), jax.devices()[:1]), (kit.EOS,))
    return HeadReader(steps, steps.place_reference(kit.tiny_params()))


def hidden_of(tokens):
    model, trunk = kit.tiny_model(), kit.tiny_params()["trunk"]
    return policy.hidden_states(model, trunk, jnp.asarray(tokens))


def test_a_token_is_valued_once_it_is_read(reader):
    """q_t stands where token t itself is, not where it is predicted."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 300, (6, 22)).astype(np.int32)  # six rows: one part and a half
    prompt, count = np.array([3, 4, 12, 5, 6, 7]), np.array([10, 2, 10, 4, 1, 3])
    mask = np.arange(10)[None] < count[:, None]
    zeros, ends = mask * np.float32(0), (prompt + count).astype(np.int32)
    rollout = Rollout(tokens, prompt.astype(np.int32), ends, mask, zeros, zeros, count > 9)
    verdicts = [V.COMPILE, V.WRONG, V.PASS, V.TIMEOUT, V.RUNTIME, V.INFRA]
    reports = [Report(verdict, (), frozenset()) for verdict in verdicts]
    head = head_of("outcome")
    critic = asking.Critic(reader, head)
    found = critic.values(kit.tiny_params(), rollout, reports)
    chances = jax.nn.softmax(heads.apply_head(head.params, hidden_of(tokens)))
    for row, outcome in enumerate([0, 2, 3, 1, 1]):
        for t in range(count[row]):
            expected = chances[row, prompt[row] + t, outcome]
            assert found[row, t] == pytest.approx(float(expected), rel=1e-4)
    assert not found[~mask].any() and not found[5].any()
    assert len(np.unique(found)) > 20


PROBLEM = problem("p", "ab\nright\n")


def encode(task, code):
    """A token for each letter; what is long does not fit."""
    ids = [5, *(ord(letter) for letter in task.head + code)]
    return None if len(code) > 9 else Example(ids, 1 + len(task.head))


def program(source, head="ab\n"):
    return Program(PROBLEM, source, len(head), ())


def test_a_program_is_judged_beside_the_written_one(reader):
    head = head_of("pair")
    judge = asking.Discriminator(reader, head, encode)
    task, strange = Task(PROBLEM, 0, 1, "ab\n"), Task(PROBLEM, 0, 1, "zz\n")
    sources = ["ab\nleft", "ab\nright", "ab\nmuch too long", "ab\nleft", "zz\nx"]
    tasks = [task] * 4 + [strange]
    found = judge.compare(kit.tiny_params(), tasks, [program(x) for x in sources])

    def score(text):
        hidden = hidden_of(np.array([[5, *map(ord, text)]]))
        return float(heads.apply_head(head.params, hidden[:, -1])[0, 0])

    expected = math.tanh(score("ab\nleft") - score("ab\nright"))
    assert found["p", "ab\nleft"] == pytest.approx(expected, rel=1e-3) and expected
    assert found["p", "ab\nright"] == pytest.approx(0, abs=1e-5)
    assert found["p", "ab\nmuch too long"] == -1 and found["p", "zz\nx"] == 0


def test_a_critic_reads_a_program_byte_by_byte(reader):
    """Chances to pass behind each token, told by the bytes of the source."""
    head = head_of("outcome")
    coded = asking.Coded(encode, [bytes([i]) for i in range(256)])
    task = Task(PROBLEM, 0, 1, "ab\n")
    wanted = [Value(task, program(x)) for x in ("ab\nleft", "ab\nmuch too long")]
    critic = asking.Critic(reader, head)
    left, long = critic.look(kit.tiny_params(), coded, wanted)
    assert long == Valued(0.0)
    logits = heads.apply_head(head.params, hidden_of([[5, *map(ord, "ab\nleft")]]))[0, 4:]
    chances = jax.nn.softmax(logits)[:, 3]
    assert [size for size, _ in left.prefixes] == [4, 5, 6, 7]
    np.testing.assert_allclose([x for _, x in left.prefixes], chances, rtol=1e-4)
    whole = jax.nn.softmax(logits.max(axis=0))[3]
    assert left.whole == pytest.approx(float(whole), rel=1e-4)
