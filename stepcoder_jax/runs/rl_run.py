"""One run of RL: its parts, its state, what it measures and what it leaves on disk."""

from __future__ import annotations

import collections
import dataclasses
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.devices import digests, sharding
from stepcoder_jax.devices.heads import HeadReader
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback import cccs
from stepcoder_jax.feedback.rewards.table import load_terms
from stepcoder_jax.heads import asking
from stepcoder_jax.planning import counting, dividing
from stepcoder_jax.records import Problem, Report, Task
from stepcoder_jax.results.drawing import beside
from stepcoder_jax.results.summary import Graded
from stepcoder_jax.runs import problem_set, schedule
from stepcoder_jax.runs.disk import contexts, sources
from stepcoder_jax.runs.disk.run_folder import RunFolder, versions
from stepcoder_jax.runs.generate import Coder
from stepcoder_jax.runs.greedy import grade, pass_rate, scores, unmeasured, whole_tasks
from stepcoder_jax.runs.hosts.channel import part
from stepcoder_jax.runs.posing import buffer, profile
from stepcoder_jax.runs.posing.buffer import Buffer
from stepcoder_jax.runs.schedule import Spent

LENGTH_FLAG = "--prompt.max_prompt_length"


class Run:
    """Everything of one run that the loop needs: its parts, its state, its folder."""

    def __init__(self, config: Config, pool: Pool) -> None:
        self.start = time.monotonic()
        named = config.evaluation.beside
        self.others = beside.read(named) if named else None
        self.folder = RunFolder(config.run.folder)
        tokenizer = sources.load_tokenizer(config.model)
        config.model = sources.resolve_model(config.model, len(tokenizer))
        config.validate()
        self.config = config
        if config.run.resume == "no":  # an older run may go on without
            sources.require_validation(config)
        with dividing.told(config, jax.device_count()):
            self.steps = self.lay_out(sources.eos_ids(config.model, tokenizer))
        shown = config.prompt.show_visible
        problems = sources.load_pool(config.data, "train", config.execution, shown)
        self.contexts = None
        if config.data.contexts:
            self.contexts = contexts.load(config, problems, tokenizer, LENGTH_FLAG)
            self.problems = [task.problem for task in self.contexts.tasks]
        else:
            self.problems = self.fitting(problems, tokenizer)
        self.curriculum = cccs.initial(self.problems, config.cccs)
        self.known_problems = problem_set.describe(self.drawn, visible=shown)
        self.terms = load_terms(config.reward.terms, config.execution.tests)
        self.coder = Coder.make(config, self.steps, pool, tokenizer)
        sharding.on_first(lambda: self.folder.open(config))
        with self.folder.starting():
            self.begin(tokenizer)

    def lay_out(self, eos_ids: tuple[int, ...]) -> Steps:
        """Programs on all devices; ShardingError where the run does not divide."""
        config = self.config
        mesh = sharding.make_mesh(config.mesh, jax.devices())
        if memory := sharding.memory(mesh):  # else auto means replicated
            chosen = counting.choose_layout(config, mesh.size, memory)
            is_split = sharding.decided(chosen == "split")
            config.sampling.layout = "split" if is_split else "replicated"
        return Steps(config, mesh, eos_ids)

    def begin(self, tokenizer: Any) -> None:
        """What is measured, written and loaded before the first iteration."""
        config = self.config
        self.problems = self.limit_cpu(self.problems, "train")
        sharding.on_first(lambda: self.folder.save_reference(config, tokenizer))
        sharding.on_first(lambda: self.folder.keep_rewards(config.reward.terms))
        layout = self.steps.actor_shardings
        self.reference = sources.load_reference(self.folder.reference, layout)
        self.reference_hash = digests.digest(self.reference)
        self.graded: dict[Split, list[Problem]] = {}  # as they were met
        self.best = -1.0
        self.spent = Spent()
        self.verdicts: collections.Counter[str] = collections.Counter()
        self.empty = 0  # iterations in a row without a valid row
        self.pending: dict[str, Any] | None = None  # metrics that wait for validation
        self.profile: profile.Profile | None = None
        self.kept_back: Buffer | None = None
        self.is_kept = config.run.resume == "yes" and self.resume()
        if not self.is_kept:
            self.state = self.steps.init_state(self.reference)
            self.profile = self.read_profile()
        self.reference = self.steps.place_reference(self.reference)
        reader = HeadReader(self.steps, self.reference)
        given = (self.reference_hash, self.folder.heads, tokenizer)
        self.asked = asking.open_asked(reader, *given)

    @property
    def drawn(self) -> list[Problem]:
        """What the rows of the curriculum are, each with its own id."""
        return self.contexts.as_problems() if self.contexts else self.problems

    def fitting(self, problems: list[Problem], tokenizer: Any) -> list[Problem]:
        """The problems whose prompts fit, at each stage that they may come to."""
        tasks = [
            task
            for i, problem in enumerate(problems)
            for task in cccs.pose_all(problem, i, self.config.cccs)
        ]
        out = sources.leave_out_long(tasks, tokenizer, self.config, LENGTH_FLAG)
        return [problem for problem in problems if problem.id not in out]

    def read_profile(self) -> profile.Profile | None:
        """The pass rates that problems are drawn by; None where each is drawn as often."""
        config = self.config.data
        if config.sample == "uniform":
            return None
        known = self.known_problems
        found, model = profile.read(config.profile, known, self.curriculum)
        if model != self.reference_hash and jax.process_index() == 0:
            print(
                f"data.profile: {config.profile} has the pass rates of another model than "
                "the one that this run begins with",
                file=sys.stderr,
            )
        return found

    @property
    def chances(self) -> np.ndarray | None:
        """How often each problem is drawn; None: all alike."""
        return None if self.profile is None else profile.chances(self.profile)

    def note(self, tasks: Sequence[Task], reports: Sequence[Report]) -> None:
        """Take an iteration's rollouts into the profile, once the curriculum has moved."""
        if self.profile is not None:
            given = (self.profile, tasks, reports, self.curriculum)
            self.profile = profile.learn(*given)

    def limit_cpu(self, problems: list[Problem], split: Split) -> list[Problem]:
        """The problems with the CPU limits that this run keeps."""
        return sources.limit_cpu(problems, self.config, split, self.folder.limits_file)

    def resume(self) -> bool:
        """Go on from a checkpoint; False where there is none yet."""
        chosen = self.config.run.step
        step = None if chosen < 0 else chosen
        restored = self.folder.restore(step, self.steps.abstract_state, best=False)
        if restored is None:
            return False
        self.state, self.curriculum, record = restored
        ours = self.reference_hash
        if not digests.agrees(record["reference"], ours, self.reference):
            raise ConfigError(
                f"run.folder: the reference in {self.folder.reference} is not the one that "
                f"checkpoint {record['step']} was trained against; restore the folder's own"
            )
        rows, shown = len(self.curriculum.stage), self.config.prompt.show_visible
        field = "data.contexts" if self.contexts else "data.path"
        problem_set.check(record, self.drawn, rows, visible=shown, field=field)
        self.best = record["best"]
        self.spent = schedule.read(record, self.config.run)
        self.verdicts.update(record["verdicts"])
        self.empty = record.get("empty", 0)
        self.pending = record.get("pending")
        if self.config.data.sample == "profile":
            self.profile = profile.from_record(record["profile"])
        if self.config.sampling.buffer:
            kept = self.folder.read_buffer(record["step"])
            self.kept_back = None if kept is None else buffer.from_arrays(kept)
        self.folder.set_later_aside(record["step"], chosen >= 0)
        return True

    def record(self) -> dict[str, Any]:
        """What a checkpoint knows beside its arrays."""
        return {
            "config": dataclasses.asdict(self.config),
            "versions": versions(),
            "reference": self.reference_hash,
            "best": self.best,
            "verdicts": dict(self.verdicts),
            "empty": self.empty,
            "spent": list(self.spent),
            "step": int(self.state.step),  # with the seed, also the cursor in the data
            "problems": self.known_problems,  # row i of the curriculum is problem i
            "pending": self.pending,
            "profile": self.profile and profile.to_record(self.profile),
        }

    def save(self, best: bool) -> None:
        """Begin a checkpoint of the present state; `folder.saver` writes it."""
        keep = self.config.run.keep
        with part("save", int(self.state.step)):
            kept = None if best else self.kept_back  # nobody goes on from the best one
            arrays = None if kept is None else buffer.to_arrays(kept)
            self.folder.save(self.state, self.curriculum, self.record(), keep, best, arrays)
        self.is_kept = self.is_kept or not best

    def load(self, split: Split) -> list[Problem]:
        config, shown = self.config, self.config.prompt.show_visible
        return sources.load_problems(config.data, split, config.execution, shown)

    def grade(self, actor: Any, split: Split, count: int, label: str) -> list[Graded]:
        """Greedy verdicts on the first `count` problems of a split."""
        problems = self.graded_problems(split, count)
        with part("validate", int(self.state.step)):
            return grade(self.coder, actor, problems, label)

    def judge_before(self) -> None:
        """Verdicts on test and validation scores of the model that the run begins with."""
        settings, actor = self.config.evaluation, self.state.actor
        if int(self.state.step) > 0:
            return
        if settings.test_problems:
            graded = self.grade(actor, "test", settings.test_problems, "test before")
            sharding.on_first(lambda: self.folder.write_before(graded))
        if settings.has_validation:
            count = settings.validation_problems
            rows = self.grade(actor, "validation", count, "validation before")
            found = scores(rows, "validation") if rows else {}
            sharding.on_first(lambda: self.folder.write_start(found))
            self.tell_beside(found)

    def graded_problems(self, split: Split, count: int) -> list[Problem]:
        """The first `count` problems of a split, but for those with too long prompts."""
        if split not in self.graded:
            problems = self.load(split)[:count]
            tasks, tokenizer = whole_tasks(problems), self.coder.tokenizer
            out = sources.leave_out_long(tasks, tokenizer, self.config, LENGTH_FLAG)
            kept = [problem for problem in problems if problem.id not in out]
            self.graded[split] = self.limit_cpu(kept, split)
        return self.graded[split]

    def count(self, generated: int, valid_rows: int) -> dict[str, float]:
        """Take an iteration in; its metrics: how many in a row had no valid row, and the
        completion tokens since the start of the run."""
        self.empty = 0 if valid_rows else self.empty + 1
        self.spent = self.spent.after(generated)
        total = self.spent.tokens
        return {
            "batch/empty_in_a_row": self.empty,
            "tokens/generated": math.nan if total is None else total,
        }

    @property
    def is_judge_broken(self) -> bool:
        return self.empty >= self.config.run.max_empty

    def not_validated(self) -> dict[str, float]:
        """The keys that `validate` gives, for the rows of iterations without it."""
        if not self.config.evaluation.has_validation:
            return {}
        count = self.config.evaluation.validation_problems
        return unmeasured(self.graded_problems("validation", count), "validation")

    def validate(self) -> dict[str, float]:
        """Validation scores; a new best is kept as a checkpoint of its own."""
        count = self.config.evaluation.validation_problems
        rows = self.grade(self.state.actor, "validation", count, "validation")
        if rows and pass_rate(rows) > self.best:
            self.best = pass_rate(rows)
            self.save(best=True)
        found = scores(rows, "validation") if rows else {}
        self.tell_beside(found)
        return found

    def tell_beside(self, found: Mapping[str, float]) -> None:
        """Say what other runs had after as many tokens, where some are shown beside."""
        if self.others is None or not found or self.spent.tokens is None:
            return
        if (value := found.get(self.others.metric)) is None:
            raise ConfigError(
                f"evaluation.beside: {self.config.evaluation.beside} has curves of "
                f"{self.others.metric}, which this run does not measure; expected one of "
                f"{', '.join(sorted(found))}"
            )
        if jax.process_index() == 0:
            print(self.others.tell(self.spent.tokens, value), file=sys.stderr)

    @property
    def next_row(self) -> int:
        """The first iteration that metrics.jsonl does not have."""
        return int(self.state.step) - (self.pending is not None)

    @property
    def end(self) -> str:
        """The field of the config that ends the run here; "" where it goes on."""
        return schedule.find_end(self.spent, self.config.run)
