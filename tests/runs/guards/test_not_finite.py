"""An update that is not finite is named, kept, and says the same when it is run again."""

import json

import jax
import numpy as np
import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.feedback import cccs
from stepcoder_jax.runs.guards import not_finite
from stepcoder_jax.runs.guards.not_finite import Dump, LeftOut
from tests import kit


@pytest.fixture(scope="module")
def left():
    """Steps, and an iteration whose second update has a row with an infinite advantage."""
    config = kit.tiny_config()
    mesh = sharding.make_mesh(config.mesh, jax.devices())
    steps = Steps(config, mesh, (kit.EOS,))
    state = steps.init_state(steps.place_params(kit.tiny_params()))
    rollout, feedback = kit.rollout_batch()
    experience, state, _ = steps.make_experience(
        state, steps.place_params(kit.tiny_params()), rollout, feedback
    )
    rows = not_finite.choose_rows(config, 0, 1)
    host = jax.device_get(experience)
    row = next(row for row in rows if host.loss_mask[row].any())
    advantages = host.advantages.copy()
    advantages[row, np.flatnonzero(host.loss_mask[row])[0]] = np.inf
    experience = steps._on_devices(host._replace(advantages=advantages))
    state, learnt = steps.update(state, experience)
    return steps, LeftOut(state, experience, int(learnt["nonfinite_first"])), int(row)


@pytest.mark.long
def test_what_is_found_and_run_again(left, tmp_path, capsys):
    steps, error, row = left
    config = steps.config
    assert error.update == 1
    found, rows, batch = not_finite.look(steps, error)
    assert (found.step, found.update, found.updates) == (0, 1, 2)
    assert row in found.rows and len(found.rows) == 8 and found.inputs == ["advantages"]
    assert any(name.startswith("actor/trunk/") for name in found.names)
    assert "iteration 0, update 2 of 2: the gradient of actor/" in str(found)

    dump = Dump.new(tmp_path, 0)
    assert dump.path == tmp_path / "nonfinite" / "0"
    dump.write(config, found, rows, batch, lambda tokens: " ".join(map(str, tokens)))
    curriculum = cccs.CurriculumState(*(np.zeros(2) for _ in cccs.CurriculumState._fields))
    dump.folder.save(error.state, curriculum, {"step": 0}, keep=1, best=False)
    dump.folder.saver.wait()
    texts = [
        json.loads(line) for line in (dump.path / "rows.jsonl").read_text().split("\n")[:-1]
    ]
    assert sorted(text["row"] for text in texts) == found.rows
    assert Dump.new(tmp_path, 0).path.name == "0.1"

    assert main(["replay", str(dump.path)]) == 0
    assert capsys.readouterr().out == f"{found}\nas in the run\n"
    arrays = dict(np.load(dump.path / "rows.npz"))
    arrays["advantages"] = np.nan_to_num(arrays["advantages"], posinf=0)
    np.savez(dump.path / "rows.npz", **arrays)
    assert main(["replay", str(dump.path)]) == 1
    out = capsys.readouterr().out
    assert "computed again, gradient and loss are finite\nin the run: iteration 0" in out


def test_a_folder_that_holds_no_update(tmp_path, capsys):
    assert main(["replay", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "expected RUN/nonfinite/STEP" in said and said.count("\n") == 1
