"""Supervised fine-tuning: `stepcoder sft EXPERIMENT` makes the policy that RL starts from.

loss = - sum_t mask_t log pi(y_t | x, y_<t) / sum_t mask_t over the completion tokens of a
batch: the canonical solution behind the response head, its closing fence and EOS.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from stepcoder_jax import cccs, evaluate, prompts, sharding, sources, weights
from stepcoder_jax.batching import Layout
from stepcoder_jax.config import Config, ConfigError, ModelConfig, SFTConfig
from stepcoder_jax.data import tokenizer as bpe
from stepcoder_jax.models import lora, policy
from stepcoder_jax.records import Problem, Task
from stepcoder_jax.vocabulary import Scoring, score_tokens

if TYPE_CHECKING:
    from stepcoder_jax.models.policy import Params

BUCKET = 64  # rows are padded to a multiple of this many tokens, so few shapes compile


class Example(NamedTuple):
    """One row: prompt, completion, and where the completion begins."""

    ids: list[int]
    prompt_length: int


class Batch(NamedTuple):
    """Rows packed from the left; L is a multiple of `BUCKET`."""

    tokens: Any  # i32[B, L]
    prompt_length: Any  # i32[B]
    length: Any  # i32[B], 0 for a row that only fills up the batch


def examples(
    problems: Sequence[Problem], tokenizer: Any, config: Config
) -> tuple[list[Example], int]:
    """The rows of a problem set, and how many were left out: too long, or no solution.

    The head is the starter code where the solution begins with it, and empty otherwise.
    """
    prompt, table = config.prompt, prompts.token_bytes(tokenizer)
    rows: list[Example] = []
    for i, problem in enumerate(problems):
        if not problem.solution:
            continue
        head = cccs.head(problem, 0)
        if not problem.solution.startswith(head):
            head = ""
        start = prompts.prompt_ids(Task(problem, i, 0, head), tokenizer, prompt)
        code = problem.solution[len(head) :].rstrip("\n") + "\n" + prompt.fence
        end = [*prompts.completion_ids(code, tokenizer, table), tokenizer.eos_token_id]
        fits = len(end) <= config.sampling.max_completion_length
        if fits and len(start) <= prompt.max_prompt_length:
            rows.append(Example(start + end, len(start)))
    return rows, len(problems) - len(rows)


def make_batch(rows: Sequence[Example], batch_size: int) -> Batch:
    """Pad rows to a common multiple of `BUCKET`; missing rows have length 0."""
    width = -(-max(len(row.ids) for row in rows) // BUCKET) * BUCKET
    tokens = np.zeros((batch_size, width), np.int32)
    sizes = np.zeros((2, batch_size), np.int32)
    sizes[0] = 1
    for i, row in enumerate(rows):
        tokens[i, : len(row.ids)] = row.ids
        sizes[:, i] = row.prompt_length, len(row.ids)
    return Batch(tokens, sizes[0], sizes[1])


def epoch(rows: Sequence[Example], batch_size: int, seed: int, index: int) -> list[Batch]:
    """One shuffled pass; rows of like length share a batch, so little is padding."""
    rng = np.random.default_rng([seed, index])
    order = rng.permutation(len(rows))
    buckets: dict[int, list[Example]] = {}
    batches = []
    for i in order:
        width = -(-len(rows[i].ids) // BUCKET)
        bucket = buckets.setdefault(width, [])
        bucket.append(rows[i])
        if len(bucket) == batch_size:
            batches.append(make_batch(bucket, batch_size))
            buckets[width] = []
    batches += [make_batch(bucket, batch_size) for bucket in buckets.values() if bucket]
    return [batches[i] for i in rng.permutation(len(batches))]


def completion_mask(batch: Batch) -> jax.Array:
    """Positions 1..L-1 that hold a completion token, bool[B, L - 1]."""
    place = jnp.arange(1, batch.tokens.shape[1])[None]
    return (place >= batch.prompt_length[:, None]) & (place < batch.length[:, None])


def loss(config: ModelConfig, vocab_shards: int, params: Params, batch: Batch) -> jax.Array:
    """Sum of the negative log-likelihood of the completion tokens, in nats."""
    hidden = policy.hidden_states(config, params["trunk"], batch.tokens[:, :-1])
    scoring = Scoring(temperature=1.0, shards=vocab_shards, entropy=False)
    scores = score_tokens(policy.lm_head(params), hidden, batch.tokens[:, 1:], scoring)
    return -jnp.sum(scores.logprobs * completion_mask(batch))


def gradient(
    config: Config, layout: Layout, trained: Params, frozen: Params, batch: Batch
) -> tuple[jax.Array, Params]:
    """The mean loss over all completion tokens of the batch, and its gradient.

    `frozen` is the rest of the parameters (see `models.lora`). Micro-batches are added up,
    each divided by the whole batch's count: their number changes nothing but the memory.
    """
    count = jnp.maximum(1, jnp.sum(completion_mask(batch)))
    split = (config.sft.num_micro_batches, -1)
    parts = jax.tree.map(lambda x: x.reshape(*split, *x.shape[1:]), batch)

    def mean(trained: Params, part: Batch) -> jax.Array:
        params = lora.graft(frozen, trained)
        return loss(config.model, layout.vocab_shards, params, part) / count

    def add(total: Any, part: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(mean)(trained, part)), None

    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, trained))
    return jax.lax.scan(add, zeros, layout.place(parts, 1))[0]


def step(
    config: Config,
    layout: Layout,
    optimizer: optax.GradientTransformation,
    params: Params,
    opt_state: optax.OptState,
    batch: Batch,
) -> tuple[Params, optax.OptState, jax.Array]:
    """One pure update: new parameters, new optimizer state, the loss before it."""
    trained, frozen = lora.split(params)
    value, gradients = gradient(config, layout, trained, frozen, batch)
    updates, opt_state = optimizer.update(gradients, opt_state, trained)
    trained = optax.apply_updates(trained, updates)
    return lora.graft(frozen, trained), opt_state, value


def make_optimizer(config: SFTConfig, num_steps: int) -> optax.GradientTransformation:
    """AdamW with linear warm-up, then linear decay to zero (paper, section 4.2)."""
    warmup = max(1, int(config.warmup_fraction * num_steps))
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(0.0, config.learning_rate, warmup),
            optax.linear_schedule(config.learning_rate, 0.0, max(1, num_steps - warmup)),
        ],
        [warmup],
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, b1=0.9, b2=0.95, weight_decay=config.weight_decay),
    )


def make_step(
    config: Config, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh
) -> tuple[Callable[..., Any], Any]:
    """`step`, jitted with its shardings, and the shardings of the parameters."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(partial(policy.init_params, config.model), key)
    params = jax.eval_shape(partial(policy.add_adapters, config.model), params, key)
    layout = sharding.param_shardings(mesh, params)
    moments = jax.eval_shape(optimizer.init, lora.split(params)[0])
    moments = sharding.param_shardings(mesh, moments)
    rows, whole = sharding.batch_sharding(mesh, 0), sharding.replicated(mesh)
    program = jax.jit(
        sharding.on_mesh(mesh, partial(step, config, sharding.layout(mesh), optimizer)),
        in_shardings=(layout, moments, rows),
        out_shardings=(layout, moments, whole),
        donate_argnums=(0, 1),
    )
    return program, layout


def plan(rows: Sequence[Example], config: Config) -> int:
    """Number of updates: whole epochs, and the share of the last one."""
    size, seed, epochs = config.sft.batch_size, config.run.seed, config.sft.epochs
    whole = sum(len(epoch(rows, size, seed, i)) for i in range(int(epochs)))
    rest = epochs - int(epochs)
    return whole + (int(rest * len(epoch(rows, size, seed, int(epochs)))) if rest else 0)


def fit(config: Config, rows: Sequence[Example], params: Params) -> Params:
    """Train on `rows` until the epochs, or the minutes, are over; new parameters.

    With LoRA they are the given ones and adapters.
    """
    settings, seed = config.sft, config.run.seed
    num_steps = plan(rows, config)
    optimizer = make_optimizer(settings, num_steps)
    mesh = sharding.make_mesh(config.mesh, jax.devices())
    shards = sharding.batch_shards(mesh)
    if settings.batch_size % (settings.num_micro_batches * shards):
        raise ConfigError(
            f"sft.batch_size: {settings.batch_size} does not divide into "
            f"sft.num_micro_batches {settings.num_micro_batches} x {shards} devices "
            "(mesh.data x mesh.fsdp)"
        )
    program, layout = make_step(config, optimizer, mesh)
    params = policy.add_adapters(config.model, params, jax.random.key(seed))
    params = sharding.to_devices(sharding.to_host(params), layout)
    opt_state = jax.jit(optimizer.init)(lora.split(params)[0])
    start, done, index = time.monotonic(), 0, 0
    with tqdm(total=num_steps, unit="step", dynamic_ncols=True) as bar:
        while done < num_steps:
            for batch in epoch(rows, settings.batch_size, seed, index)[: num_steps - done]:
                params, opt_state, value = program(params, opt_state, batch)
                done += 1
                bar.update()
                if done % 10 == 0:
                    bar.set_postfix_str(f"epoch={index} loss={float(value):.4f}")
                if 0 < settings.minutes * 60 < time.monotonic() - start:
                    return params
            index += 1
    return params


def build_tokenizer(config: Config, folder: Path) -> Any:
    """The tokenizer of the config, or one trained on the benchmark's train split."""
    if config.model.tokenizer or config.model.checkpoint:
        return sources.load_tokenizer(config.model)
    problems = [
        p for split in ("sft", "train") for p in sources.load_problems(config.data, split)
    ]
    texts = [f"{p.statement}\n```python\n{p.solution}```" for p in problems]
    bpe.train(texts, config.model.vocab_size, folder)
    return sources.load_tokenizer(ModelConfig(tokenizer=str(folder)))


def run(config: Config) -> int:
    """`stepcoder sft`: write run.folder as a Hugging Face folder, tokenizer included."""
    folder = Path(config.run.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise ConfigError(
            f"run.folder: cannot write to {folder} ({error.strerror}); choose another "
            "with --run.folder"
        ) from error
    if not is_empty:
        raise ConfigError(
            f"run.folder: {folder} is not empty; choose another with --run.folder"
        )
    tokenizer = build_tokenizer(config, folder)
    config.model = sources.resolve_model(config.model, len(tokenizer))
    config.validate()
    rows, dropped = examples(
        sources.load_pool(config.data, config.sft.split), tokenizer, config
    )
    print(
        f"{len(rows)} rows, {dropped} left out: longer than the model's limits, or "
        "without a solution",
        file=sys.stderr,
    )
    params = fit(config, rows, sources.load_actor(config.model, config.run.seed))
    if config.model.lora_rank:
        params = lora.merge(config.model, params)
        config.model = dataclasses.replace(config.model, lora_rank=0)
    weights.save_checkpoint(folder, config.model, sharding.to_host(params), "bfloat16")
    tokenizer.save_pretrained(folder)
    if config.evaluation.test_problems:
        graded = evaluate.grade_params(config, sharding.to_host(params), tokenizer, "test")
        (folder / "after.json").write_text(json.dumps(graded) + "\n")
        for metric, value in evaluate.scores(graded, "test").items():
            print(f"{metric:28s} {100 * value:5.1f} %")
    print(f"wrote {folder}: give it to `stepcoder train` as --model.checkpoint {folder}")
    return 0
