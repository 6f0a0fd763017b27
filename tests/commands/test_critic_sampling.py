"""`stepcoder evaluate --critic`: critic sampling of a run's model, and what is refused."""

import dataclasses
import json

import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.heads import folder
from stepcoder_jax.strategies import critic_sampling
from tests.learning.test_coderl import save_heads


@pytest.mark.long
def test_a_model_is_sampled_by_a_critic(tmp_path, capsys, monkeypatch):
    save_heads(tmp_path)
    run, problems = tmp_path / "begun", tmp_path / "problems.jsonl"
    shown = [
        dataclasses.replace(x, visible_tests=x.tests[:1])
        for x in benchmark.load("test")[:3]
    ]
    own.write(shown, problems)
    heads = []
    best = critic_sampling.best_prefix

    def watched(task, program, told):
        assert told.prefixes and all(0 < chance < 1 for _, chance in told.prefixes)
        source = program.source.encode()
        ends = [size for size, _ in told.prefixes if size <= len(source)]
        assert ends == sorted(ends) and len(source) in ends
        heads.append(best(task, program, told))
        assert program.source.startswith(heads[-1])
        return heads[-1]

    monkeypatch.setattr(critic_sampling, "best_prefix", watched)
    flags = ["evaluate", str(run), "--before", "--problems", str(problems)]
    flags += ["--critic", str(tmp_path / "outcome"), "--samples-per-problem", "4"]
    assert main([*flags, "--out", str(tmp_path / "out")]) == 0
    assert "Critic sampling, by " in capsys.readouterr().out
    rows = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(rows) == 12 and heads and any(heads)
    for row in map(json.loads, rows):
        assert len(row["rounds"]) == 2
        assert row["result"] == row["rounds"][-1]
    told = json.loads((tmp_path / "out" / "results.json").read_text())
    assert told["rounds"] == 1 and told["critic"] == str(tmp_path / "outcome")
    # another model's head, a head of another kind, and flags that cannot be
    record = tmp_path / "outcome" / folder.RECORD
    record.write_text(json.dumps(json.loads(record.read_text()) | {"model": "0" * 64}))
    for more, why in (
        ([], "--critic: the head in"),
        (["--critic", str(tmp_path / "pair")], "--critic: expected a head of kind outcome"),
        (["--rounds", "1"], "--critic: it has its one round of its own"),
        (["--samples-per-problem", "1"], "--critic: a greedy program"),
    ):
        assert main([*flags, *more]) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert any(why in line for line in said), said
