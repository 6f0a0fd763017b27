"""How large `stepcoder report` is, and how soon it answers in Chromium.

python experiments/benchmarks/report_speed.py [RUN ...] [--rollouts N]

Without RUN it makes a run of N rollouts (20,000) up: programs of 30 lines, 180 tokens each,
with numbers of their own. "interactive" is from the start of the navigation until all that
the page shows first is drawn and the keys answer; "filter" from a change of a filter until
the table is laid out again, each of the filters in turn; "open" from the wish to see a
rollout until its program is laid out, of chunks that were not open. "CPU" is the processor
time of the page's own thread for the same (for "filter" the mean over all changes): it is
what the wall time would be on a machine that does nothing else. Needs selenium and Chromium
with its driver (Debian: chromium, chromium-driver).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stepcoder_jax.__main__ import main as stepcoder
from stepcoder_jax.config import Config

PER_STEP, PROBLEMS, LINES = 200, 400, 30
VERDICTS = ("pass", "wrong", "wrong", "runtime", "timeout", "compile")
LEVELS = ("introductory", "interview", "competition")
STAGES = 4


def find_browser() -> tuple[str, str] | None:
    """The programs chromium and chromedriver; None where one is missing."""
    names = (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))
    found = [next(filter(None, map(shutil.which, some)), None) for some in names]
    return (found[0], found[1]) if found[0] and found[1] else None


def open_browser() -> Any:
    """A headless Chromium that keeps what the page says on its console."""
    from selenium import webdriver

    binary, driver = find_browser() or ("", "")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--window-size=1400,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def load(browser: Any, file: Path, most: float = 60.0) -> float:
    """Open a report; the seconds until it is interactive."""
    browser.get(file.absolute().as_uri())
    end = time.monotonic() + most
    while time.monotonic() < end:
        ready = browser.execute_script("return document.documentElement.dataset.ready")
        if ready:
            return int(ready) / 1000
        time.sleep(0.02)
    raise TimeoutError(f"{file} is not interactive after {most} s")


def cpu_seconds(browser: Any) -> float:
    """Processor time of the page's thread since `Performance.enable`."""
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(x["value"] for x in metrics if x["name"] == "TaskDuration"))


def make_rollout(rng: np.random.Generator, problem: int, step: int) -> dict[str, Any]:
    """A row of rollouts/STEP.jsonl with numbers drawn for each of its tokens."""
    level = LEVELS[problem % len(LEVELS)]
    lines = [f"    x{i % 7} = x{(i * 3) % 7} + {rng.integers(99)}\n" for i in range(LINES)]
    stage = int(rng.integers(STAGES))
    head = "".join(["def solve(x0, x1, x2):\n", *lines[: 5 * stage]])
    completion = "".join([*lines[5 * stage :], "    return x0\n"])
    at, spans = len(head.encode()), []
    for word in completion.replace("\n", "\n\0").replace(" = ", " =\0 ").split("\0"):
        for piece in (word[:6], word[6:]):
            if piece:
                spans.append([at, at + len(piece)])
                at += len(piece)
    count = len(spans) + 1
    verdict = VERDICTS[int(rng.integers(len(VERDICTS)))]
    reward = {"pass": 1.0, "wrong": -0.3, "compile": -1.0}.get(verdict, -0.6)
    values = rng.normal(0.0, 0.4, count).cumsum() / 9
    return {
        **{"problem": f"made/{level}/{problem}", "difficulty": level, "stage": stage},
        **{"head": head, "completion": completion, "verdict": verdict, "message": ""},
        "tests": ["pass", verdict, *["not_run"] * (verdict != "pass")],
        "shown": [
            {"test": 0, "verdict": "pass", "Call": f"solve({step})", "Expected": "1"},
            {"test": 1, "verdict": verdict, "Call": "solve(2)", "Got": str(problem)},
        ],
        **{"reward": reward, "rewards": [[count - 1, reward]], "valid": True},
        **{"truncated": bool(rng.random() < 0.02), "spans": [*spans, None]},
        "executed": (rng.random(count) < 0.85).astype(int).tolist(),
        "logprobs": (-rng.exponential(0.2, count)).round(5).tolist(),
        "advantages": (reward - values).round(5).tolist(),
        "values": values.round(5).tolist(),
    }


def make_rows(rng: np.random.Generator, steps: int) -> Iterator[dict[str, Any]]:
    """Rows of metrics.jsonl."""
    for step in range(steps):
        share = 0.1 + 0.6 * step / max(1, steps) + 0.05 * float(rng.random())
        yield {
            **{"step": step, "pass_rate": share, "reward": 1.3 * share - 0.3},
            **{"verdict/pass": share, "verdict/wrong": 1 - share, "fgo/masked": 0.1},
            **{"fgo/masked_pass": 0.08, "fgo/masked_wrong": 0.12, "kl": step / 1000},
            **{"entropy": 0.5 - step / 1000, "explained_variance": share},
            **{"value_bias/pass": -share, "value_rmse/pass": share, "cccs/mean_stage": 2},
            **{f"seconds/{part}": 1.0 for part in ("sample", "judge", "update")},
            "validation/pass@1": share if step % 5 == 0 else None,
            "tokens/generated": 1000 * (step + 1),
        }


def make_run(folder: Path, steps: int, per_step: int, seed: int = 0) -> Path:
    """A run's folder as `stepcoder train` leaves it, with made-up numbers."""
    rng = np.random.default_rng(seed)
    config = Config()
    config.run.seed, config.run.folder = seed, str(folder)
    (folder / "rollouts").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": config.to_dict()}))
    (folder / "start.json").write_text(json.dumps({"validation/pass@1": 0.1}))
    rows = make_rows(rng, steps)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))
    for step in range(steps):
        problems = rng.integers(PROBLEMS, size=per_step)
        rollouts = (make_rollout(rng, int(problem), step) for problem in problems)
        text = "".join(json.dumps(row) + "\n" for row in rollouts)
        (folder / "rollouts" / f"{step}.jsonl").write_text(text)
    return folder


# A change of a filter, and the layout that follows it.
FILTER = """
const [id, value] = arguments, start = performance.now();
document.getElementById(id).value = value;
document.getElementById("filters").dispatchEvent(new Event("input", { bubbles: true }));
document.body.offsetHeight;
return performance.now() - start;
"""
OPEN = """
const [row, done] = arguments, start = performance.now();
views.open(row).then(() => {
  document.body.offsetHeight;
  done(performance.now() - start);
});
"""


def measure(file: Path) -> dict[str, float]:
    """Seconds until the report is interactive, milliseconds of filters and of opening."""
    browser = open_browser()
    try:
        ticks = {"timeDomain": "threadTicks"}
        browser.execute_cdp_cmd("Performance.enable", ticks)
        found = {"interactive, s": load(browser, file)}
        found["interactive, CPU s"] = cpu_seconds(browser)
        browser.execute_script("views.show('table')")
        options = {
            "filter-problem": ["1", "competition", "no such problem", ""],
            "filter-verdict": ["0", "1", ""],
            "filter-stage": ["0", "1", ""],
            "filter-from": ["10", ""],
            "filter-to": ["30", ""],
        }
        before = cpu_seconds(browser)
        times = [
            browser.execute_script(FILTER, name, value)
            for _ in range(3)
            for name, values in options.items()
            for value in values
        ]
        found |= {"filter, ms, median": statistics.median(times)}
        found |= {"filter, ms, most": max(times)}
        spent = cpu_seconds(browser) - before
        found |= {"filter, CPU ms, mean": 1000 * spent / len(times)}
        total = browser.execute_script("return views.table.index.columns.run.length")
        rows = [int(total * share) for share in (0, 0.3, 0.55, 0.8)] if total else []
        opened = [browser.execute_async_script(OPEN, row) for row in rows]
        return found | ({"open, ms, most": max(opened)} if opened else {})
    finally:
        browser.quit()


def run() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--rollouts", type=int, default=20_000)
    given = parser.parse_args()
    if find_browser() is None:
        print("no chromium or no chromedriver on the path", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as place:
        runs = [Path(path) for path in given.runs]
        if not runs:
            steps = max(1, given.rollouts // PER_STEP)
            per_step = min(PER_STEP, given.rollouts)
            runs = [make_run(Path(place) / "made", steps, per_step)]
        out, start = Path(place) / "report.html", time.process_time()
        flags = ["--out", str(out), "--rollouts", str(given.rollouts)]
        if code := stepcoder(["report", *map(str, runs), *flags]):
            return code
        print(f"written in {time.process_time() - start:.1f} s of CPU time")
        print(f"size, MB: {out.stat().st_size / 1e6:.2f}")
        for name, number in measure(out).items():
            print(f"{name}: {number:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
