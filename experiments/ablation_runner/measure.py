"""Ask the model that a run ended with: greedy programs on validation and, once, on test.

python measure.py MODEL OUT.json EXPERIMENT:ARM [--test]

MODEL is a run folder, of which the best model by validation and the last one are asked, or
a model folder or name. For the tier "guarded" it also says what is right at each part of
the programs with most parts. A process of its own, since it needs the accelerator.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stepcoder_jax.config import Config
from stepcoder_jax.records import Problem, Program
from stepcoder_jax.results.logger import to_json
from stepcoder_jax.results.summary import Graded
from stepcoder_jax.runs import restore
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.disk.run_folder import RunFolder
from stepcoder_jax.runs.experiment import load_experiment
from stepcoder_jax.runs.generate import Coder, complete_greedily
from stepcoder_jax.runs.greedy import scores, whole_tasks
from stepcoder_jax.runs.restore import Asked

HARDEST = "competition"  # K = 9


def positions(problems: Sequence[Problem], programs: Sequence[Program]) -> dict[str, Any]:
    """Shares of programs with guard, class and operation right, by position of the part."""
    from stepcoder_jax.data.generated import guarded

    rows = [
        guarded.accuracy_by_position(problem, program.source)
        for problem, program in zip(problems, programs, strict=True)
        if problem.difficulty == HARDEST
    ]
    if not rows:
        return {}
    shares = np.array(rows, float).mean(axis=0)  # [parts, 3]
    names = ("guard", "class", "operation")
    return {name: shares[:, i].round(4).tolist() for i, name in enumerate(names)}


def ask(
    config: Config, coder: Coder, actor: Any, problems: Sequence[Problem], split: str
) -> dict[str, Any]:
    """Greedy scores, and the accuracy by position where the tier has parts."""
    judged = complete_greedily(coder, actor, whole_tasks(problems), split)
    rows = [
        Graded(problem.id, problem.difficulty, report.verdict)
        for problem, report in zip(problems, judged.reports, strict=True)
    ]
    found: dict[str, Any] = {
        "problems": len(rows),
        **{name: to_json(x) for name, x in scores(rows, split).items()},
    }
    if config.data.path == "guarded":
        found["positions"] = positions(problems, judged.programs)
    return found


def measure(model: str, experiment: str, with_test: bool) -> dict[str, Any]:
    """Best model on validation and, where asked, on test; last model on validation."""
    config = load_experiment(experiment)
    count = config.evaluation.validation_problems
    asked = Asked(
        config.prompt.max_prompt_length,
        config.sampling.max_completion_length,
        config.prompt.template,
    )
    problems = {
        split: sources.load_problems(config.data, split) for split in ("validation", "test")
    }
    with restore.opened(model, None, False, "none", asked) as (_, coder, actor, label):
        validated = problems["validation"][:count]
        found = {
            "best": {"model": label, **ask(config, coder, actor, validated, "validation")}
        }
        if with_test:
            found["test"] = ask(config, coder, actor, problems["test"], "test")
        last = RunFolder(model).latest(best=False) if Path(model).is_dir() else None
        if label == f"iteration {last} (best)":
            found["last"] = found["best"]
        elif last is not None:
            wanted = coder.steps.abstract_state
            actor, _ = RunFolder(model).restore_networks(last, wanted, best=False)
            found["last"] = {
                "model": f"iteration {last}",
                **ask(config, coder, actor, validated, "validation"),
            }
    return found


def main() -> None:
    """Write OUT whole, or not at all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("experiment")
    parser.add_argument("--test", action="store_true")
    given = parser.parse_args()
    found = measure(given.model, given.experiment, given.test)
    part = given.out.with_suffix(".part")
    part.write_text(json.dumps(found) + "\n")
    part.replace(given.out)


if __name__ == "__main__":
    main()
