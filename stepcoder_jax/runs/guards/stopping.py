"""The end of a run whose update was not finite."""

from __future__ import annotations

from typing import NoReturn

from stepcoder_jax.devices import sharding
from stepcoder_jax.runs.guards.not_finite import Dump, LeftOut, NotFiniteError, look
from stepcoder_jax.runs.rl_run import Run


def stop(run: Run, left: LeftOut) -> NoReturn:
    """Keep the state before the update and its rows; raise NotFiniteError, on all hosts.

    If it was the iteration's first, the run can be resumed from there too.
    """
    run.state = left.state
    found, rows, batch = look(run.steps, left)
    dump = Dump.new(run.folder.path, found.step)
    decode = run.coder.tokenizer.decode
    sharding.on_first(lambda: dump.write(run.config, found, rows, batch, decode))
    dump.folder.save(run.state, run.curriculum, run.record(), keep=1, best=False)
    dump.folder.saver.wait()
    if found.update == 0 and not run.is_kept:
        run.save(best=False)
    run.folder.saver.wait()
    raise NotFiniteError(
        f"{found}; the state before it and its rows are in {dump.path}, `stepcoder replay "
        f"{dump.path}` runs it again; begin again with a lower ppo.actor.learning_rate, or "
        "that of ppo.critic if there is one"
    )
