"""A whole iteration against a plain loop in PyTorch: rows one by one, without padding, in
float64, networks of transformers, its own GAE, losses and masks, torch's AdamW.

Old logprobs, advantages, returns, the first update's gradients, and all parameters after
two updates. Nothing of the learning core is used on the oracle's side; the order of the
minibatches alone is taken from it, since it is a draw.
"""

import copy
import math

import jax
import numpy as np
import pytest

from stepcoder_jax import config as c
from stepcoder_jax.devices.steps import ALGORITHMS
from stepcoder_jax.learning import batching, updates
from stepcoder_jax.learning.batching import ONE_DEVICE
from stepcoder_jax.models import weights
from stepcoder_jax.pytrees import Feedback, Rollout

torch = pytest.importorskip("torch", reason="torch, the oracle, is not installed")
import transformers  # noqa: E402 (slow, and for nothing where torch is missing)

pytestmark = pytest.mark.slow
VOCAB, PROMPT, COLUMNS, ROWS, GROUP = 96, 7, 9, 16, 4
RATE = 3e-3
FAMILIES = {
    "llama": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}},
    "qwen2": {"tie_word_embeddings": True},
    "mistral": {"sliding_window": 6, "head_dim": 16},
    "starcoder2": {"tie_word_embeddings": True, "sliding_window": 7},
}


def make_model(family, seed):
    """A small random model, every parameter away from its neutral value."""
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None}
    sizes |= {"tie_word_embeddings": False}
    torch.manual_seed(0)
    settings = transformers.AutoConfig.for_model(family, **sizes | FAMILIES[family])
    model = transformers.AutoModelForCausalLM.from_config(settings).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def make_config(shape, algorithm, coupling):
    """Two minibatches of 8 rows; clips that hold tokens back; decay, and a small clip."""
    config = c.Config(algorithm=algorithm, model=c.ModelConfig(**shape))
    config.prompt.max_prompt_length = PROMPT
    config.sampling = c.SamplingConfig(ROWS // GROUP, GROUP, COLUMNS, temperature=0.8)
    optimizer = {"learning_rate": RATE, "warmup_steps": 2, "weight_decay": 0.1}
    config.ppo = c.PPOConfig(
        num_minibatches=2,
        num_micro_batches=2,
        clip_eps=0.03,
        value_clip_eps=0.02,
        entropy_coef=0.02,
        kl_coef=0.1,
        gamma=0.98,
        gae_lambda=0.9,
        coupling=coupling,
        actor=c.OptimizerConfig(**optimizer, max_grad_norm=0.5),
        critic=c.OptimizerConfig(**optimizer, max_grad_norm=1e3),
    )
    config.grpo = c.GRPOConfig(clip_low=0.02, clip_high=0.03, kl_coef=0.1)
    return config


def make_batch(is_parted):
    """Rows of all lengths, a row that is not valid, code that never ran; where they are
    parted, explanations of all lengths with rewards of their own."""
    rng = np.random.default_rng(3)
    before = rng.integers(2, PROMPT + 1, ROWS).astype(np.int32)
    count = rng.integers(1, COLUMNS + 1, ROWS).astype(np.int32)
    mask = np.arange(COLUMNS)[None] < count[:, None]
    place = np.arange(PROMPT + COLUMNS)[None] < (before + count)[:, None]
    tokens = rng.integers(1, VOCAB, place.shape) * place
    rewards = np.zeros(mask.shape, np.float32)
    rewards[np.arange(ROWS), count - 1] = rng.choice([1.0, -0.3, -0.6, -1.0], ROWS)
    zeros = np.zeros(mask.shape, np.float32)
    tokens = tokens.astype(np.int32)
    rollout = Rollout(tokens, before, before + count, mask, zeros, zeros, count < 0)
    executed = mask & (rng.random(mask.shape) < 0.7)
    feedback = Feedback(rewards, executed, np.arange(ROWS) != 5)
    if not is_parted:
        return rollout, feedback
    explained = np.minimum(rng.integers(0, COLUMNS, ROWS), count).astype(np.int32)
    has = np.flatnonzero(explained)
    rewards[has, explained[has] - 1] += rng.normal(size=len(has)).astype(np.float32)
    return rollout, feedback._replace(explained=explained)


class Row:
    """One rollout as the oracle keeps it: lists of its own length."""

    def __init__(self, rollout, feedback, i):
        start, end = int(rollout.prompt_length[i]), int(rollout.length[i])
        self.tokens = torch.tensor(rollout.tokens[i, :end].astype(np.int64))
        self.start, self.count = start, end - start
        self.rewards = torch.tensor(feedback.rewards[i, : end - start]).double()
        parted = feedback.explained is not None
        self.explained = int(feedback.explained[i]) if parted else 0
        self.kept = torch.tensor(feedback.executed[i, : end - start])
        self.valid = bool(feedback.valid[i])

    def policy(self, model, temperature):
        """log pi over the vocabulary where each completion token is predicted."""
        logits = model(self.tokens[None]).logits[0, self.start - 1 : -1]
        return torch.log_softmax(logits / temperature, -1)

    def chosen(self, log_pi):
        return log_pi.gather(1, self.tokens[self.start :, None])[:, 0]

    def values(self, critic):
        trunk, head = critic
        hidden = trunk(self.tokens[None]).last_hidden_state[0, self.start - 1 : -1]
        return head(hidden)[:, 0]


def clipped(ratio, advantages, low, high):
    bounded = torch.clamp(ratio, 1 - low, 1 + high)
    return -torch.minimum(ratio * advantages, bounded * advantages)


class Oracle:
    """Actor, reference and critic of torch, and the rows of one iteration."""

    def __init__(self, config, model, reference, head, batch):
        self.config = config
        self.actor = copy.deepcopy(model).double()
        self.reference = reference.double()
        self.critic = (copy.deepcopy(model.model).double(), head)
        self.rows = [Row(*batch, i) for i in range(ROWS)]
        self.temperature = config.sampling.temperature
        self.prepare()
        self.optimizers = [self.optimizer(x) for x in self.networks()]

    def networks(self):
        """The parameters of the actor, and with PPO of the critic, by name."""
        found = [dict(self.actor.named_parameters())]
        if self.config.algorithm == "ppo":
            trunk, head = self.critic
            own = {f"model.{name}": x for name, x in trunk.named_parameters()}
            found.append(own | {f"head.{name}": x for name, x in head.named_parameters()})
        return found

    def optimizer(self, named):
        settings = self.config.ppo.actor
        plain = ("norm", "bias", "embed_tokens")
        groups = [
            {"params": [x for name, x in named.items() if not is_plain(name, plain)]},
            {"params": [x for name, x in named.items() if is_plain(name, plain)]},
        ]
        groups[0]["weight_decay"], groups[1]["weight_decay"] = settings.weight_decay, 0.0
        betas = (settings.b1, settings.b2)
        return torch.optim.AdamW(groups, lr=RATE, betas=betas, eps=settings.eps)

    def prepare(self):
        """Everything that is fixed before the first update."""
        with torch.no_grad():
            for row in self.rows:
                row.old = row.chosen(row.policy(self.actor, self.temperature))
                row.ref = row.chosen(row.policy(self.reference, self.temperature))
                row.old_values = row.values(self.critic)
        if self.config.algorithm == "ppo":
            outcomes = np.array(
                [float(row.rewards.sum()) for row in self.rows if row.valid]
            )
            divisor = outcomes.std(ddof=1)
            for row in self.rows:
                self.estimate(row, row.rewards / divisor)
        else:
            for start in range(0, ROWS, GROUP):
                group = [row for row in self.rows[start : start + GROUP] if row.valid]
                for row in group:
                    row.advantages = torch.zeros(row.count).double()
                self.compare(group, lambda row: slice(0, row.explained))
                self.compare(group, lambda row: slice(row.explained, row.count))

    def compare(self, group, part_of):
        """Advantages of one part of the answers, of those that have it."""
        group = [row for row in group if len(row.rewards[part_of(row)])]
        sums = np.array([float(row.rewards[part_of(row)].sum()) for row in group])
        if len(group) > 1 and np.ptp(sums) > 0:
            for row, worth in zip(group, (sums - sums.mean()) / sums.std(ddof=1)):
                row.advantages[part_of(row)] = worth

    def estimate(self, row, outcome):
        """GAE by its definition: sums of discounted temporal differences, which with
        hard_split end with the part of the answer that a token stands in."""
        ppo = self.config.ppo
        rewards = outcome - ppo.kl_coef * (row.old - row.ref)
        parts = [(0, row.count)]
        if ppo.coupling == "hard_split":
            parts = [(0, row.explained), (row.explained, row.count)]
        found = []
        for start, end in parts:
            for t in range(start, end):
                total = 0.0
                for k in range(t, end):
                    later = row.old_values[k + 1] if k + 1 < end else 0.0
                    delta = rewards[k] + ppo.gamma * later - row.old_values[k]
                    total = total + (ppo.gamma * ppo.gae_lambda) ** (k - t) * delta
                found.append(total)
        row.advantages = torch.stack(found)
        row.returns = row.advantages + row.old_values

    def loss(self, rows):
        """The loss of one update, over rows that are valid."""
        rows = [row for row in rows if row.valid]
        if self.config.algorithm == "ppo":
            return self.ppo_loss(rows)
        return self.grpo_loss(rows)

    def ppo_loss(self, rows):
        ppo = self.config.ppo
        policy, value = 0.0, 0.0
        for row in rows:
            log_pi = row.policy(self.actor, self.temperature)
            ratio = torch.exp(row.chosen(log_pi) - row.old)
            terms = clipped(ratio, row.advantages, ppo.clip_eps, ppo.clip_eps)
            entropy = -(log_pi.exp() * log_pi).sum(-1)
            policy += ((terms - ppo.entropy_coef * entropy) * row.kept).sum()
            values, eps = row.values(self.critic), ppo.value_clip_eps
            near = row.old_values + torch.clamp(values - row.old_values, -eps, eps)
            worst = torch.maximum((values - row.returns) ** 2, (near - row.returns) ** 2)
            value += 0.5 * worst.sum()
        kept = sum(int(row.kept.sum()) for row in rows)
        return policy / kept + value / sum(row.count for row in rows)

    def grpo_loss(self, rows):
        settings, total, counted = self.config.grpo, 0.0, 0
        for row in rows:
            kept = int(row.kept.sum())
            if not kept:
                continue
            log_pi = row.policy(self.actor, self.temperature)
            logprobs = row.chosen(log_pi)
            ratio = torch.exp(logprobs - row.old)
            low, high = settings.clip_low, settings.clip_high
            away = row.ref - logprobs
            terms = clipped(ratio, row.advantages, low, high)
            terms = terms + settings.kl_coef * (torch.exp(away) - away - 1)
            entropy = -(log_pi.exp() * log_pi).sum(-1)
            terms = terms - self.config.ppo.entropy_coef * entropy
            total += (terms * row.kept).sum() / kept
            counted += 1
        return total / counted

    def update(self, chosen, number):
        """One step of each optimizer; the gradients before they were clipped."""
        networks = self.networks()
        for named in networks:
            for parameter in named.values():
                parameter.grad = None
        self.loss([self.rows[i] for i in chosen]).backward()
        settings = (self.config.ppo.actor, self.config.ppo.critic)
        gradients = []
        for named, optimizer, chosen_settings in zip(networks, self.optimizers, settings):
            gradients.append({name: x.grad.numpy().copy() for name, x in named.items()})
            limit = chosen_settings.max_grad_norm
            torch.nn.utils.clip_grad_norm_(named.values(), limit)
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1, (number + 1) / 2)
            optimizer.step()
        return gradients


def is_plain(name, plain):
    return any(part in name for part in plain)


def read(model, params):
    """Our parameters under the names of transformers."""
    return {name: x.read() for name, x in weights.tensors_of(model, params).items()}


def read_critic(model, critic, actor):
    """A critic's, as the oracle names them; `actor` lends a head, which is left out."""
    named = read(model, actor | {"trunk": critic["trunk"]})
    named.pop("lm_head.weight", None)
    head = critic["value_head"]
    return named | {
        "head.weight": np.asarray(head["kernel"]).T,
        "head.bias": np.asarray(head["bias"]),
    }


def load(folder, model):
    model.save_pretrained(folder)
    return weights.load_checkpoint(folder, np.float32)


def close(ours, theirs, atol):
    """Arrays by name; theirs may lack nothing and ours nothing."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=atol, err_msg=name)


CASES = [(family, algorithm, "") for family in FAMILIES for algorithm in ("ppo", "grpo")]
# answers of two parts, each with a reward
CASES += [("llama", "ppo", "printed"), ("llama", "ppo", "hard_split")]
CASES += [("llama", "grpo", "printed")]


@pytest.mark.parametrize(("family", "algorithm", "coupling"), CASES)
def test_an_iteration_is_that_of_a_plain_torch_loop(family, algorithm, coupling, tmp_path):
    model, reference = make_model(family, 1), make_model(family, 2)
    shape, params = load(tmp_path / "actor", model)
    _, frozen = load(tmp_path / "reference", reference)
    config = make_config(shape, algorithm, coupling or "printed")
    rollout, feedback = make_batch(bool(coupling))
    head = torch.nn.Linear(32, 1).double()
    oracle = Oracle(config, model, reference, head, (rollout, feedback))
    learner = ALGORITHMS[algorithm]
    state = updates.init_state(learner, config, params)
    if algorithm == "ppo":
        kernel = head.weight.detach().numpy().T.astype(np.float32)
        bias = head.bias.detach().numpy().astype(np.float32)
        state = state._replace(
            critic=state.critic | {"value_head": {"kernel": kernel, "bias": bias}}
        )

    experience, _, _ = jax.jit(
        lambda *given: updates.make_experience(learner, config, *given, ONE_DEVICE)
    )(state, frozen, rollout, feedback)
    for i, row in enumerate(oracle.rows):
        names = {"old_logprobs": "old", "ref_logprobs": "ref", "advantages": "advantages"}
        if algorithm == "ppo":
            names |= {"old_values": "old_values", "returns": "returns"}
        for ours, theirs in names.items():
            found = np.asarray(getattr(experience, ours))[i]
            expected = np.zeros(COLUMNS)
            if row.valid:
                expected[: row.count] = getattr(row, theirs).numpy()
            np.testing.assert_allclose(found, expected, atol=2e-5, err_msg=ours)

    order = np.asarray(batching.shuffle_order(config, state.step, ROWS))
    gradients = [oracle.update(rows, i) for i, rows in enumerate(order)]
    first = jax.tree.map(lambda x: x[order[0]], experience)
    trained = (state.actor, state.critic)
    ours = jax.jit(
        lambda trained, part: updates.minibatch_gradients(
            learner, config, trained, {}, part, ONE_DEVICE
        )[0]
    )(trained, first)
    after, metrics = jax.jit(
        lambda *given: updates.update(learner, config, *given, ONE_DEVICE)
    )(state, experience)
    close(read(config.model, ours[0]), gradients[0][0], atol=2e-5)
    networks = [
        {name: x.detach().numpy() for name, x in named.items()}
        for named in oracle.networks()
    ]
    close(read(config.model, after.actor), networks[0], atol=0.02 * RATE)
    if algorithm == "ppo":
        lent = state.actor
        close(read_critic(config.model, ours[1], lent), gradients[0][1], atol=2e-5)
        close(read_critic(config.model, after.critic, lent), networks[1], atol=0.02 * RATE)
    norm = math.sqrt(sum(np.sum(x**2) for x in gradients[0][0].values()))
    assert norm > config.ppo.actor.max_grad_norm  # clipped
    assert metrics["clip_fraction"] > 0 and abs(metrics["ratio_max"] - 1) > 0.01
