"""One run of supervised fine-tuning: its programs, its state, what it measures."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
import optax

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.devices import digests, finite, sharding
from stepcoder_jax.feedback import sft_rows
from stepcoder_jax.feedback.sft_rows import Example, Group, make_batch
from stepcoder_jax.learning import sft
from stepcoder_jax.models import lora, policy
from stepcoder_jax.pytrees import TextBatch, TextState
from stepcoder_jax.records import InputError, Problem
from stepcoder_jax.results.summary import Graded
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.disk.checkpoint import Saved
from stepcoder_jax.runs.disk.run_folder import versions
from stepcoder_jax.runs.disk.sft_folder import Model, SFTFolder
from stepcoder_jax.runs.generate import Coder
from stepcoder_jax.runs.greedy import grade, pass_rate, scores, unmeasured
from stepcoder_jax.runs.hosts.channel import part

WEIGHTS = "weights of model.checkpoint"  # what LoRA leaves alone
LOSSES = ("validation/loss", "validation/perplexity")


class NotFiniteError(InputError):
    """An update that was not finite; the state before it is saved."""


class Programs(NamedTuple):
    """The jitted, sharded programs of a run."""

    step: Callable[..., Any]  # (params, opt_state, batch) -> new ones and the loss
    score: Callable[..., Any]  # (params, batch) -> summed loss
    look: Callable[..., Any]  # (params, batch) -> which gradients are finite
    init: Callable[..., Any]  # params -> opt_state
    params: Any  # shardings of the parameters, adapters included


def make_programs(
    config: Config, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh
) -> Programs:
    """`learning.sft` with its shardings; parameters and moments are donated to `step`."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(partial(policy.init_params, config.model), key)
    params = jax.eval_shape(partial(policy.add_adapters, config.model), params, key)
    layout = sharding.param_shardings(mesh, params)
    moments = jax.eval_shape(optimizer.init, lora.split(params)[0])
    moments = sharding.param_shardings(mesh, moments)
    rows, whole = sharding.batch_sharding(mesh, 0), sharding.replicated(mesh)
    spread, on_mesh = sharding.layout(mesh), partial(sharding.on_mesh, mesh)
    step = jax.jit(
        on_mesh(partial(sft.step, config, spread, optimizer)),
        in_shardings=(layout, moments, rows),
        out_shardings=(layout, moments, whole),
        donate_argnums=(0, 1),
    )
    score = jax.jit(
        on_mesh(partial(sft.loss, config, spread)),
        in_shardings=(layout, rows),
        out_shardings=whole,
    )
    look = jax.jit(
        on_mesh(partial(sft.look, config, spread)),
        in_shardings=(layout, rows),
        out_shardings=whole,
    )
    # jit itself does not split a host's arrays where there are several hosts
    return Programs(
        step=lambda params, state, batch: step(
            params, state, sharding.to_devices(batch, rows)
        ),
        look=lambda params, batch: look(params, sharding.to_devices(batch, rows)),
        score=lambda params, batch: score(params, sharding.to_devices(batch, rows)),
        init=jax.jit(
            lambda params: optimizer.init(lora.split(params)[0]),
            in_shardings=(layout,),
            out_shardings=moments,
        ),
        params=layout,
    )


class Judging(NamedTuple):
    """What greedy evaluation takes, beside the parameters."""

    coder: Coder
    find: Callable[[Split, int], list[Problem]]  # the first problems of a split

    def grade(self, params: Any, split: Split, count: int, label: str) -> list[Graded]:
        return grade(self.coder, params, self.find(split, count), label)


class Run:
    """Everything of one run that the loop needs: its parts, its state, its folder."""

    def __init__(
        self,
        config: Config,
        examples: Sequence[Example],
        num_steps: int,
        tokenizer: Any,
        judging: Judging | None,
        folder: SFTFolder,
    ) -> None:
        self.config, self.examples, self.tokenizer = config, examples, tokenizer
        self.judging, self.folder = judging, folder
        seed = config.run.seed
        self.num_steps = num_steps
        self.schedule = sft.make_schedule(config.sft, num_steps)
        optimizer = sft.make_optimizer(config.sft, num_steps)
        mesh = sharding.make_mesh(config.mesh, jax.devices())
        self.programs = make_programs(config, optimizer, mesh)
        params = sources.load_actor(config.model, seed)
        params = policy.add_adapters(config.model, params, jax.random.key(seed))
        self.params = sharding.to_devices(sharding.to_host(params), self.programs.params)
        self.opt_state = self.programs.init(self.params)
        self.whole = sharding.replicated(mesh)
        self.step, self.start = 0, time.monotonic()
        self.best: tuple[float, ...] = (
            -1.0,
            -math.inf,
        )  # pass@1, and minus the validation loss
        # what must not change under a run that is resumed
        self.known = {
            "problems or samples": sft_rows.digest(examples),
            WEIGHTS: digests.digest(self.frozen),
        }
        self.pending: dict[str, Any] | None = None  # a row that waits for validation
        self.is_kept = config.run.resume == "yes" and self.resume()
        self.is_over = self.find_end()

    @property
    def frozen(self) -> Any:
        """What LoRA leaves alone; nothing without it."""
        return lora.split(self.params)[1]

    @property
    def next_row(self) -> int:
        """The first update that metrics.jsonl does not have."""
        return self.step - (self.pending is not None)

    def resume(self) -> bool:
        """Go on where the state was kept; False where it was not yet."""
        state = self.state()
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        chosen = self.config.run.step
        saved = self.folder.restore_state(abstract, None if chosen < 0 else chosen)
        if saved is None:
            return False
        state, arrays, record = saved
        for name, value in self.known.items():
            then = record["known"][name]
            is_same = then == value
            if name == WEIGHTS:
                is_same = digests.agrees(then, value, self.frozen)
            if not is_same:
                raise ConfigError(
                    f"run.folder: the {name} have changed since the run in "
                    f"{self.folder.path} was stopped; put them back, or choose another "
                    "--run.folder"
                )
        self.step, self.opt_state = int(state.step), state.opt_state
        self.params = lora.graft(self.frozen, state.trained)
        self.best = tuple(arrays["best"].tolist())
        self.start -= record["seconds"]
        self.pending = record.get("pending")
        return True

    def state(self) -> TextState:
        """What is kept of the run; with LoRA not the base, which the config names."""
        step = jax.device_put(np.int32(self.step), self.whole)
        return TextState(step, lora.split(self.params)[0], self.opt_state)

    def save(self) -> None:
        """Begin to save the model, and the state."""
        keep = self.config.run.keep
        self.save_state(self.folder.begin_model(self.step, self.model(), keep, best=False))

    def save_state(self, *first: Callable[[], None]) -> None:
        """Begin to save the state; `folder.saver` writes it, after what is `first`."""
        record = {
            "seconds": time.monotonic() - self.start,
            "versions": versions(),
            "known": self.known,
            "pending": self.pending,
        }
        saved = Saved(self.state(), {"best": np.array(self.best)}, record)
        with part("save", self.step):
            self.folder.save_state(saved, *first)
        self.is_kept = True

    def model(self) -> Model:
        config = self.config
        return Model(
            config.model,
            self.params,
            config.sampling,
            sources.eos_ids(config.model, self.tokenizer),
            self.tokenizer,
        )

    def groups(self) -> Iterator[tuple[int, Group]]:
        """What is left to learn, with the number of its epoch."""
        index, skip = 0, self.step
        while True:
            found = sft_rows.epoch(
                self.examples, self.config.sft, self.config.run.seed, index
            )
            for group in found[skip:]:
                yield index, group
            index, skip = index + 1, max(0, skip - len(found))

    def update(self, group: Group) -> dict[str, Any]:
        """One update; its metrics, of which the loss is that before it."""
        start = time.perf_counter()
        batch = make_batch(group, self.config.sft.batch_size)
        with part("update", self.step):
            self.params, self.opt_state, value = self.programs.step(
                self.params, self.opt_state, batch
            )
            value = float(value)
        if not math.isfinite(value):
            self.stop(batch)
        seconds = time.perf_counter() - start
        metrics = {
            "loss": value,
            "learning_rate": float(self.schedule(self.step)),
            "tokens": group.tokens,
            "padding": 1 - group.tokens / batch.tokens.size,
            "tokens_per_second": group.tokens / seconds,
            "seconds/update": seconds,
        }
        self.step += 1
        self.is_kept = False
        self.is_over = self.find_end()
        return metrics

    def stop(self, batch: TextBatch) -> NoReturn:
        """End a run whose update was not finite, and so has changed nothing."""
        unsound = sharding.to_host(self.programs.look(self.params, batch))
        found = finite.describe(finite.name_unsound(unsound))
        if not self.is_kept:
            self.save_state()
        self.folder.saver.wait()
        raise NotFiniteError(
            f"update {self.step}: {found}; the state before it is in {self.folder.states}, "
            "and --run.resume runs it again; begin again with a lower sft.learning_rate"
        )

    def find_end(self) -> bool:
        limit = self.config.sft.minutes * 60
        is_late = 0 < limit < time.monotonic() - self.start
        return self.step >= self.num_steps or (limit > 0 and sharding.decided(is_late))

    def due(self, every: int) -> bool:
        return every > 0 and (self.step % every == 0 or self.is_over)

    def validate(self) -> dict[str, float]:
        """Validation scores; the model of a new best is kept.

        Best by pass@1, among equals by the loss on canonical solutions.
        """
        found, rate, value = self.measure()
        if (rate, -value) > self.best:
            self.best = (rate, -value)
            self.folder.save_best(self.step, self.model())
        return found

    def not_validated(self) -> dict[str, float]:
        """The keys that `validate` gives, for the rows of updates without it."""
        if self.judging is None or not self.config.evaluation.every:
            return {}
        count = self.config.evaluation.validation_problems
        names = unmeasured(self.judging.find("validation", count), "validation")
        return names | dict.fromkeys(LOSSES if self.validated else (), math.nan)

    def measure_start(self) -> None:
        """Keep the validation scores of the model that the run begins with."""
        found, _, _ = self.measure()
        sharding.on_first(lambda: self.folder.write_start(found))

    def measure(self) -> tuple[dict[str, float], float, float]:
        """Validation scores; among them pass@1 and the loss on canonical solutions."""
        if self.judging is None:
            return {}, -1.0, math.inf
        count = self.config.evaluation.validation_problems
        with part("validate", self.step):
            rows = self.judging.grade(self.params, "validation", count, "validation")
        found = scores(rows, "validation")
        value = self.mean_loss(self.validated)
        if self.validated:
            found |= dict(zip(LOSSES, (value, math.exp(value))))
        return found, pass_rate(rows), value

    @functools.cached_property
    def validated(self) -> list[Example]:
        """The canonical solutions of the validation problems, as text."""
        assert self.judging is not None
        count = self.config.evaluation.validation_problems
        problems = self.judging.find("validation", count)
        return sft_rows.canonical(problems, self.tokenizer, self.config)[0]

    def mean_loss(self, examples: Sequence[Example]) -> float:
        """Nats per completion token of examples; infinite for none."""
        if not examples:
            return math.inf
        settings = self.config.sft
        total, count = 0.0, 0
        for group in sft_rows.epoch(examples, settings, seed=0, index=0):
            batch = make_batch(group, settings.batch_size)
            total += float(self.programs.score(self.params, batch))
            count += int(batch.scored.sum())
        return total / count
