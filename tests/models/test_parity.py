"""Every family against Hugging Face's transformers in PyTorch, both ways."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.config import ModelConfig
from stepcoder_jax.models import hf_config, policy, weights
from stepcoder_jax.pytrees import PromptBatch
from stepcoder_jax.sampling.drawing import Truncation
from tests import kit

torch = pytest.importorskip("torch", reason="torch, the oracle, is not installed")
import transformers  # noqa: E402 (slow, and for nothing where torch is missing)

VOCAB, WIDTH, COLUMNS = 96, 9, 12
LENGTHS = (5, 9)  # of the prompts: one shorter than the windows below, one longer
ROPE = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    # tiny contexts, so that pairs of all three kinds exist: stretched, blended, kept
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    | {"high_freq_factor": 4.0, "original_max_position_embeddings": 32},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 4}
    | {"original_max_position_embeddings": 32},
}
# model_type, then what its config says beside the common sizes
CASES = {
    "llama2": ("llama", {"num_key_value_heads": 4}),
    "llama3": ("llama", {"rope_parameters": ROPE["llama3"] | {"rope_theta": 5e5}}),
    "deepseek_coder": ("llama", {"rope_parameters": ROPE["linear"] | {"rope_theta": 1e5}}),
    "mistral": ("mistral", {"sliding_window": 6, "head_dim": 16, "num_key_value_heads": 1}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2_yarn": ("qwen2", {"rope_parameters": ROPE["yarn"] | {"rope_theta": 1e4}}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "starcoder2": ("starcoder2", {"sliding_window": 7, "tie_word_embeddings": True}),
}


def make_model(name):
    """A random model of transformers, with every parameter away from its neutral value."""
    kind, fields = CASES[name]
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None}
    sizes |= {"tie_word_embeddings": False}
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(kind, **sizes | fields)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


class Pair:
    """The same model on both sides, and what each says about the same tokens."""

    def __init__(self, name, folder):
        self.folder, self.model = folder, make_model(name)
        self.model.save_pretrained(folder)
        shape, self.params = weights.load_checkpoint(folder, np.float32)
        self.config = ModelConfig(**shape)
        rng = np.random.default_rng(0)
        self.tokens = rng.integers(0, VOCAB, (2, WIDTH + COLUMNS)).astype(np.int32)

    @functools.cached_property
    def ours(self):
        """Logits, and the gradient of the mean log-likelihood."""

        def likelihood(params, tokens):
            logits = policy.all_logits(self.config, params, tokens)
            logprobs = jax.nn.log_softmax(logits[:, :-1])
            chosen = jnp.take_along_axis(logprobs, tokens[:, 1:, None], axis=-1)
            return jnp.mean(chosen), logits

        gradient = jax.jit(jax.grad(likelihood, has_aux=True))
        return gradient(self.params, self.tokens)[::-1]

    @functools.cached_property
    def theirs(self):
        tokens = torch.tensor(self.tokens, dtype=torch.long)
        logits = self.model(tokens).logits
        logprobs = torch.log_softmax(logits[:, :-1], -1)
        torch.gather(logprobs, 2, tokens[:, 1:, None]).mean().backward()
        named = self.model.named_parameters()
        gradient = {name: parameter.grad.numpy() for name, parameter in named}
        return logits.detach().numpy(), gradient

    @functools.cached_property
    def rollout(self):
        """Greedy completions of two prompts by our sampler, through its cache."""
        sampler = kit.make_sampler(
            self.config,
            Truncation(0.0),
            num_slots=2,
            num_prompts=2,
            chunk=7,
            num_columns=COLUMNS,
            eos_ids=(-1,),
        )
        lengths = np.array(LENGTHS, np.int32)
        inside = np.arange(WIDTH)[None] < lengths[:, None]
        prompts = np.where(inside, self.tokens[:, :WIDTH], 0).astype(np.int32)
        batch = PromptBatch(prompts, lengths, np.arange(2, dtype=np.int32))
        return kit.complete(sampler, self.params, batch)


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    return Pair(request.param, tmp_path_factory.mktemp(request.param))


def test_logits(pair):
    expected = pair.theirs[0]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(pair.ours[0], expected, rtol=0, atol=1e-4)


def test_logits_in_bfloat16(pair):
    """Rounding errors of both sides against the same rounded weights in float32.

    Measured, on logits of 1.2 (root of the mean square): ours 0.011 to 0.016, torch's 0.010
    to 0.020; greatest difference between the two 0.08 to 0.17.
    """
    half = copy.deepcopy(pair.model).to(torch.bfloat16)
    tokens = torch.tensor(pair.tokens, dtype=torch.long)
    with torch.no_grad():
        theirs = half(tokens).logits.float().numpy()
        exact = half.float()(tokens).logits.numpy()
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), pair.params)
    config = dataclasses.replace(pair.config, dtype="bfloat16")
    ours = np.asarray(policy.all_logits(config, params, pair.tokens))
    assert ours.dtype == np.float32

    def error(x):
        return np.sqrt(np.mean((x - exact) ** 2))

    assert error(ours) < 1.25 * error(theirs)
    assert np.abs(ours - theirs).max() < 0.25


def test_gradient(pair):
    gradient = weights.tensors_of(pair.config, pair.ours[1])
    assert gradient.keys() == pair.theirs[1].keys()
    for name, expected in pair.theirs[1].items():
        error = np.linalg.norm(gradient[name].read() - expected)
        assert error <= 1e-3 * np.linalg.norm(expected), name


def test_greedy_generation_token_for_token(pair):
    for row, length in enumerate(LENGTHS):
        prompt = torch.tensor(pair.tokens[row : row + 1, :length], dtype=torch.long)
        expected = pair.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),  # else it is guessed from pad ids
            do_sample=False,
            max_new_tokens=COLUMNS,
            pad_token_id=0,
        )
        got = pair.rollout.tokens[row, : length + COLUMNS]
        np.testing.assert_array_equal(got, expected[0].numpy())
    assert len(np.unique(pair.rollout.tokens[:, max(LENGTHS) :])) > 2  # it says something


def test_cached_decoding_equals_uncached(pair):
    tokens = np.asarray(pair.rollout.tokens)
    logits = policy.all_logits(pair.config, pair.params, tokens)
    logprobs = np.asarray(jax.nn.log_softmax(logits))
    for row, length in enumerate(LENGTHS):
        place = np.arange(length, length + COLUMNS)
        expected = logprobs[row, place - 1, tokens[row, place]]
        np.testing.assert_allclose(pair.rollout.logprobs[row], expected, atol=1e-5)


def test_export_round_trip_is_exact(pair, tmp_path):
    weights.save_checkpoint(tmp_path, pair.config, pair.params, "float32", 30_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert ModelConfig(**hf_config.read_shape(tmp_path)) == pair.config
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is type(pair.model)
    theirs = pair.model.state_dict()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, theirs.pop(name)), name
    assert not theirs
    tokens = torch.tensor(pair.tokens, dtype=torch.long)
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, pair.model(tokens).logits)
