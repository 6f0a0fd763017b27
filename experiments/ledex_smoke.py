"""Smoke run of LEDEX on genuine problems: do its four commands hold on real files?

Question   Do refine, sft on records, train on contexts and evaluate --rounds 3 work
           together on the statements, tests and docstrings of HumanEval and MBPP?
Command    stepcoder train experiments/ledex_smoke.py --data.contexts RECORDS.jsonl
           --data.path PROBLEMS.jsonl

           or all of it, which prints seconds and counts:

           python experiments/ledex_smoke.py FOLDER --humaneval HumanEval.jsonl.gz \\
             --mbpp mbpp.jsonl [--count 40]
Hardware   two CPU cores, 3 GB of memory, some minutes
Expected   all commands end; the weights are random, so no program passes, no answer to a
           failure has code, and after 30 updates none has either. With 40 problems of each
           file: 160 wrong programs, 320 answers that pass, 97 to 280 s a command on two
           busy cores

A model of random weights never mends a program, and `refine` says so. So the answers that
SFT and RL learn from are the canonical solutions, judged, behind one sentence. What is
shown is mechanics alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stepcoder_jax import config as c


def get_config(arg: str = "") -> c.Config:
    """Two layers of width 32 on all contexts of --data.contexts; takes no argument."""
    del arg
    return c.Config(
        run=c.RunConfig(folder="runs/ledex_smoke", total_steps=2, save_every=2),
        model=c.ModelConfig(
            tokenizer="builtin",
            hidden_size=32,
            intermediate_size=64,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            head_dim=16,
            max_positions=1536,
        ),
        prompt=c.PromptConfig(template="plain", max_prompt_length=1280, variant="explain"),
        sampling=c.SamplingConfig(
            problems_per_step=4,
            rollouts_per_problem=2,
            max_completion_length=256,
            chunk=32,
        ),
        ppo=c.PPOConfig(num_micro_batches=8, scale_rewards=False),
        cccs=c.CCCSConfig(enabled=False),
        execution=c.ExecutionConfig(tests="run_all"),
        sft=c.SFTConfig(batch_size=4, packing=1536, epochs=1.0, learning_rate=3e-3),
    )


def write_problems(file: str, count: int, out: Path) -> None:
    """The first problems of a file whose tests may be shown, in our own format."""
    from stepcoder_jax.data.formats import own
    from stepcoder_jax.data.problems import read_any

    problems, _ = read_any(file, strict=False)
    own.write([x for x in problems if x.visible_tests][:count], out)


def answer_all(problems: Sequence[Path], wrong: Path, records: Path) -> int:
    """Answer each wrong program with the canonical solution; how many answers pass."""
    from stepcoder_jax.data.problems import read_any
    from stepcoder_jax.data.refinements import RefinementRecord, append_refinements
    from stepcoder_jax.execution import Pool, PoolSettings
    from stepcoder_jax.records import Program, Variant
    from stepcoder_jax.runs.refining.folder import Folder
    from stepcoder_jax.similarity.lexemes import overlap

    known = {x.id: x for file in problems for x in read_any(str(file), strict=True)[0]}
    asked = list(Folder(wrong).wrong())
    problems_asked = [known[each.task_id] for each, _, _ in asked]
    solved = [Program(x, x.solution, 0, ()) for x in problems_asked]
    with Pool(PoolSettings(tests="run_all")) as pool:
        reports = pool.run(solved)
    made = [
        RefinementRecord(
            task_id=each.task_id,
            wrong_id=each.wrong_id,
            wrong=each.source,
            source=source,
            feedback=attempt,
            explanation="It is not what was asked for." * (variant is Variant.EXPLAIN),
            refinement=program.source,
            variant=variant,
            teacher="canonical",
            round=1,
            verdict=report.verdict,
            passed_tests=report.passed_tests,
            tests=len(report.tests),
            similar=overlap(each.source, program.source),
            weak=report.weak,
        )
        for (each, attempt, source), program, report in zip(asked, solved, reports)
        for variant in Variant
    ]
    with records.open("x", encoding="utf-8") as file:
        append_refinements(file, made)
    return sum(record.is_right for record in made)


def run(*argv: object) -> None:
    """A command of stepcoder, in a process of its own, timed."""
    words = [str(word) for word in argv]
    print(f"\n$ stepcoder {' '.join(words)}", flush=True)
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "stepcoder_jax", *words], check=False)
    seconds = time.perf_counter() - begun
    print(f"exit {done.returncode} after {seconds:.0f} s", flush=True)


def main() -> None:
    """All four commands, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--humaneval", required=True)
    parser.add_argument("--mbpp", required=True)
    parser.add_argument("--count", type=int, default=40, help="problems of each file")
    flags = parser.parse_args()
    flags.folder.mkdir()
    files = [flags.folder / "humaneval.jsonl", flags.folder / "mbpp.jsonl"]
    for file, source in zip(files, (flags.humaneval, flags.mbpp)):
        write_problems(source, flags.count, file)
    first, wrong, records, mended, learnt = (
        flags.folder / name for name in ("first", "wrong", "records.jsonl", "sft", "rl")
    )
    both = flags.folder / "problems.jsonl"
    both.write_text("".join(file.read_text() for file in files))
    data = ("--data.path", both)
    direct = ("--prompt.variant", "direct")
    run("sft", __file__, *data, *direct, "--run.folder", first)
    few = ("--samples-per-problem", 2, "--answers", 1)
    run("refine", first, "--problems", *files, *few, "--out", wrong)
    print(f"{answer_all(files, wrong, records)} answers of the canonical teacher pass")
    known = ("--data.contexts", records)
    learn = ("--sft.records", records, "--run.folder", mended)
    run("sft", __file__, *data, *known, *learn)
    start = ("--model.checkpoint", mended, "--run.folder", learnt)
    run("train", __file__, *data, *known, *start)
    asked = ("--rounds", 3, "--variant", "both", "--samples-per-problem", 1)
    run("evaluate", learnt, "--problems", both, *asked, "--out", flags.folder / "evaluated")


if __name__ == "__main__":
    main()
