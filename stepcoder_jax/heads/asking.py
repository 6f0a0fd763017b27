"""What a run's heads say of its programs: q_t of tokens, and which one is the written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.devices import digests
from stepcoder_jax.devices.heads import HeadReader
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.feedback.sft_rows import Encode, Example, encoder
from stepcoder_jax.heads import folder
from stepcoder_jax.heads.folder import Head
from stepcoder_jax.heads.samples import CLASS_OF, arrays_of, behind
from stepcoder_jax.models.heads import OUTCOMES
from stepcoder_jax.pytrees import Rollout
from stepcoder_jax.records import Program, Report, Task
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.strategies.driving import Value, Valued

Named = tuple[str, str]  # a problem's id and a source: a program, for who looks it up
# of a program that is too long to be read: nobody would have written it
TOO_LONG = -1.0


class Coded(NamedTuple):
    """How programs become tokens, and tokens bytes."""

    encode: Encode
    table: list[bytes]  # of `prompts.token_bytes`


def _code_of(program: Program) -> str:
    """What the model wrote of it."""
    source = program.source.encode("utf-8", "surrogatepass")
    return source[program.generated_from :].decode("utf-8", "surrogatepass")


class Critic(NamedTuple):
    """An outcome head and what it reads."""

    reader: HeadReader
    head: Head

    def values(self, actor: Any, rollout: Rollout, reports: Sequence[Report]) -> np.ndarray:
        """q_t f32[B, T] of judged rollouts, 0 outside their masks.

        A row that our own machinery failed on has no outcome, and 0.
        """
        classes = [CLASS_OF.get(report.verdict) for report in reports]
        outcome = [OUTCOMES.index(each) if each else 0 for each in classes]
        rows = (
            np.asarray(rollout.tokens),
            np.asarray(rollout.prompt_length),
            np.asarray(outcome, np.int32),
        )
        mask = np.asarray(rollout.mask)
        params, columns = self.head.params, mask.shape[1]
        values = self.reader.token_values(actor, params, rows, columns)
        known = mask & np.array([each is not None for each in classes])[:, None]
        return np.where(known, values, 0.0).astype(np.float32)

    def look(self, actor: Any, coded: Coded, asked: Sequence[Value]) -> list[Valued]:
        """The chance that each program passes, at each token and as a whole.

        A program that is too long to be read has no chance, and no prefix.
        """
        examples = [coded.encode(x.task, _code_of(x.program)) for x in asked]
        read = [place for place, example in enumerate(examples) if example is not None]
        found = [Valued(0.0) for _ in asked]
        if not read:
            return found
        chosen = [example for example in examples if example is not None]
        config = self.reader.steps.config
        columns = config.sampling.max_completion_length
        width = config.prompt.max_prompt_length + columns
        tokens, mask = arrays_of(chosen, len(chosen), width)
        prompt = np.array([example.prompt_length for example in chosen], np.int32)
        passed = np.full(len(chosen), OUTCOMES.index("passed"), np.int32)
        params = self.head.params
        each = self.reader.token_values(actor, params, (tokens, prompt, passed), columns)
        rows = tokens, mask
        whole = self.reader.class_chances(actor, params, rows, self.head.pool)
        for number, place in enumerate(read):
            example, program = chosen[number], asked[place].program
            sizes = [len(coded.table[x]) for x in example.ids[example.prompt_length :]]
            ends = (program.generated_from + np.cumsum(sizes)).tolist()
            chances = each[number, : len(ends)].tolist()
            found[place] = Valued(
                float(whole[number, passed[0]]), tuple(zip(ends, chances, strict=True))
            )
        return found


class Discriminator(NamedTuple):
    """A pair head, what it reads, and how programs become tokens for it."""

    reader: HeadReader
    head: Head
    encode: Encode

    def compare(
        self, actor: Any, tasks: Sequence[Task], programs: Sequence[Program]
    ) -> dict[Named, float]:
        """tanh(s(program) - s(canonical)) of each program, behind the task's head.

        From -1, surely not the written one, to 1; 0 where the solution does not go on
        behind that head, and `TOO_LONG`.
        """
        found: dict[Named, float] = {}
        pairs: dict[Named, tuple[Example, Example]] = {}
        for task, program in zip(tasks, programs, strict=True):
            name = program.problem.id, program.source
            if name in found or name in pairs:
                continue
            canonical = behind(task, self.encode)
            sampled = self.encode(task, _code_of(program))
            if canonical is None or sampled is None:
                found[name] = 0.0 if canonical is None else TOO_LONG
            else:
                pairs[name] = (sampled, canonical)
        if pairs:
            scores = self._scores(actor, [x for pair in pairs.values() for x in pair])
            gaps = np.tanh(scores[0::2] - scores[1::2]).tolist()
            found |= dict(zip(pairs, gaps, strict=True))
        return found

    def _scores(self, actor: Any, examples: Sequence[Example]) -> np.ndarray:
        config = self.reader.steps.config
        width = config.prompt.max_prompt_length + config.sampling.max_completion_length
        rows = arrays_of(examples, len(examples), width)
        return self.reader.scores(actor, self.head.params, rows)


class Asked(NamedTuple):
    """The heads of a run that rewards and losses ask; most runs have none."""

    critic: Critic | None = None
    discriminator: Discriminator | None = None


def open_asked(reader: HeadReader, model: str, kept: Path, tokenizer: Any) -> Asked:
    """The heads that a config names, from a run's own copies in `kept`, made if new.

    `model` is the digest of the reference. Raises ConfigError for what is no head of the
    kind that is asked, and for one of another model.
    """
    config = reader.steps.config
    wanted = model, config.model.hidden_size
    found = Asked()
    if name := config.coderl.critic:
        copy = kept / "critic"
        head = folder.keep(
            Path(name), copy, folder.Wanted("outcome", *wanted, "coderl.critic")
        )
        found = found._replace(critic=Critic(reader, head))
    if name := config.reward.rlcf_discriminator:
        field, copy = "reward.rlcf_discriminator", kept / "discriminator"
        head = folder.keep(Path(name), copy, folder.Wanted("pair", *wanted, field))
        asks = Discriminator(reader, head, encoder(tokenizer, config))
        found = found._replace(discriminator=asks)
    return found


def read_critic(source: Path, reference: Path, steps: Steps, field: str) -> Critic:
    """The outcome head in a folder, over the model in another, for a model read back.

    `field` is what named it. Raises ConfigError as `open_asked`.
    """
    weights = sources.load_reference(reference, steps.actor_shardings)
    model, size = digests.digest(weights), steps.config.model.hidden_size
    head = folder.load(source, folder.Wanted("outcome", model, size, field))
    return Critic(HeadReader(steps, steps.place_reference(weights)), head)
