"""An update that was not finite, run again: `stepcoder replay RUN/nonfinite/STEP`."""

from __future__ import annotations

from stepcoder_jax.runs.guards.not_finite import replay


def replay_update(path: str) -> int:
    """Say where the update is not finite; 0 if that is what the run said, else 1."""
    found, again = replay(path)
    print(again)
    if again == found:
        print("as in the run")
        return 0
    print(f"in the run: {found}")
    return 1
