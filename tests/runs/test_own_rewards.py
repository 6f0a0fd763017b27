"""A run with rewards of a user's own: logged, kept, compared, and told where they fail."""

import numpy as np
import pytest

from stepcoder_jax.feedback.rewards import own
from tests.run_kit import metrics_of, run_train, saved

FLAGS = ("--evaluation.test_problems", "0", "--evaluation.validation_problems", "0")
FLAGS += ("--evaluation.every", "0", "--execution.tests", "run_all", "--algorithm", "grpo")
OWN = """
calls = 0


def half(program, report, extras):
    global calls
    calls += 1
    if calls > {last}:
        raise KeyError("no more")
    return 0.5
"""


@pytest.mark.long
def test_a_users_reward_is_logged_kept_and_compared(tmp_path, capsys):
    folder, file = tmp_path / "run", tmp_path / "mine.py"
    file.write_text(OWN.format(last=20))  # 16 rows an iteration: the second fails
    terms = ("--reward.terms", "stepcoder", "located", f"{file}:half=2")
    assert run_train(folder, *FLAGS, *terms) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("stepcoder train: reward.terms: half failed: ")
    assert f"{file}, line 9: KeyError: 'no more', for row 4 of the batch, " in told
    (row,) = metrics_of(folder)
    assert row["reward/half"] == 1.0 and row["reward/located"] <= 0
    parts = [row[f"reward/{name}"] for name in ("stepcoder", "located", "half")]
    np.testing.assert_allclose(sum(parts), row["reward"], rtol=1e-5)
    assert int(saved(folder, 1)[0].step) == 1  # what was learnt is there
    assert own.digest(folder / "rewards" / "0_mine.py") == own.digest(file)

    file.write_text(OWN.format(last=1000))
    assert run_train(folder, *FLAGS, *terms, "--run.resume") == 2
    assert f"{file} has changed since the run was begun" in capsys.readouterr().err
