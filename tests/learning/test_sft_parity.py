"""Supervised fine-tuning against a plain loop in PyTorch, on the same batches."""

import math
from functools import partial

import jax
import numpy as np
import pytest

from stepcoder_jax.config import Config, ModelConfig, SFTConfig
from stepcoder_jax.feedback import sft_rows
from stepcoder_jax.feedback.sft_rows import Example, make_batch
from stepcoder_jax.learning import sft
from stepcoder_jax.learning.batching import ONE_DEVICE
from stepcoder_jax.models import weights

torch = pytest.importorskip("torch", reason="torch, the oracle, is not installed")
import transformers  # noqa: E402 (slow, and for nothing where torch is missing)

VOCAB = 96


def make_model():
    """A small Llama."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
        initializer_range=0.035,
    )
    return transformers.LlamaForCausalLM(config)


def make_examples(count, seed):
    """Texts with something to learn: a completion repeats its prompt."""
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(0, VOCAB, n).tolist() for n in rng.integers(3, 25, count)]
    return [Example(ids + ids, len(ids)) for ids in prompts]


def torch_loss(model, examples):
    """Summed nats of the completion tokens of a padded batch; and their number."""
    width = max(len(ids) for ids, _ in examples)
    tokens = torch.zeros((len(examples), width), dtype=torch.long)
    target, mask = torch.full_like(tokens, -100), torch.zeros_like(tokens)
    for i, (ids, prompt_length) in enumerate(examples):
        tokens[i, : len(ids)] = torch.tensor(ids)
        target[i, prompt_length : len(ids)] = tokens[i, prompt_length : len(ids)]
        mask[i, : len(ids)] = 1
    logits = model(tokens, attention_mask=mask).logits[:, :-1].flatten(0, 1)
    total = torch.nn.functional.cross_entropy(
        logits, target[:, 1:].flatten(), reduction="sum"
    )
    return total, int((target[:, 1:] >= 0).sum())


def train_torch(model, groups, settings):
    """The loop that everybody would write; the loss of each update, and its norm."""
    linear = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)]
    known = {id(weight) for weight in linear}
    other = [weight for weight in model.parameters() if id(weight) not in known]
    optimizer = torch.optim.AdamW(
        [
            {"params": linear, "weight_decay": settings.weight_decay},
            {"params": other, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
        eps=1e-8,
    )
    updates, warmup = len(groups), int(settings.warmup_fraction * len(groups))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda i: (
            (i + 1) / warmup if i < warmup else (updates - i) / (updates - warmup + 1)
        ),
    )
    losses, norms = [], []
    for group in groups:
        optimizer.zero_grad()
        total, count = torch_loss(model, [text for row in group.rows for text in row])
        (total / count).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimizer.step()
        schedule.step()
        losses.append(float(total.detach()) / count)
    return losses, norms


@pytest.mark.parametrize(("packing", "batch_size"), ((0, 8), (96, 2)))
def test_a_run_has_the_losses_and_the_perplexity_of_a_plain_torch_loop(
    tmp_path, packing, batch_size
):
    oracle = make_model()
    oracle.save_pretrained(tmp_path)
    shape, params = weights.load_checkpoint(tmp_path, np.float32)
    config = Config(model=ModelConfig(**shape))
    config.sft = SFTConfig(
        batch_size=batch_size,
        packing=packing,
        num_micro_batches=2,
        learning_rate=5e-3,
        warmup_fraction=0.2,
        weight_decay=0.1,
    )
    examples, unseen = make_examples(120, seed=1), make_examples(40, seed=2)
    groups = [
        group
        for index in range(2)
        for group in sft_rows.epoch(examples, config.sft, seed=0, index=index)
    ]
    assert len(groups) >= 30
    expected, norms = train_torch(oracle, groups, config.sft)
    assert min(norms) < 1 < max(norms)  # some are clipped, some are not

    optimizer = sft.make_optimizer(config.sft, len(groups))
    step = jax.jit(partial(sft.step, config, ONE_DEVICE, optimizer))
    state, losses = optimizer.init(params), []
    for group in groups:
        params, state, value = step(params, state, make_batch(group, batch_size))
        losses.append(float(value))
    assert losses[-1] < losses[0] - 0.1
    np.testing.assert_allclose(losses, expected, rtol=1e-4)

    score = jax.jit(partial(sft.loss, config, ONE_DEVICE))
    for texts in (examples, unseen):
        batches = [
            make_batch(group, batch_size)
            for group in sft_rows.epoch(texts, config.sft, 0, 0)
        ]
        ours = sum(float(score(params, batch)) for batch in batches)
        with torch.no_grad():
            theirs, count = torch_loss(oracle, texts)
        assert count == sum(batch.scored.sum() for batch in batches)
        perplexity, oracles = math.exp(ours / count), math.exp(float(theirs) / count)
        print(f"perplexity {perplexity:.6f}, of torch {oracles:.6f}")
        assert perplexity == pytest.approx(oracles, rel=1e-4)
