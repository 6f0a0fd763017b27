"""The rewards of this folder by their names, and the terms that a config asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stepcoder_jax.config import ConfigError, split_term
from stepcoder_jax.feedback.rewards import own
from stepcoder_jax.feedback.rewards.format import format
from stepcoder_jax.feedback.rewards.length import length
from stepcoder_jax.feedback.rewards.located import located
from stepcoder_jax.feedback.rewards.pass_ratio import pass_ratio
from stepcoder_jax.feedback.rewards.rlcf import rlcf
from stepcoder_jax.feedback.rewards.stepcoder import stepcoder
from stepcoder_jax.feedback.rewards.structure import structure
from stepcoder_jax.feedback.rewards.terms import Reward, Term

TABLE: Mapping[str, Reward] = {
    "stepcoder": stepcoder,
    "pass_ratio": pass_ratio,
    "located": located,
    "structure": structure,
    "rlcf": rlcf,
    "length": length,
    "format": format,
}
PAPER = (Term("stepcoder", 1.0, stepcoder),)


def load_terms(
    texts: Sequence[str], tests: str, kept: Path | None = None
) -> tuple[Term, ...]:
    """The terms of `reward.terms`, of which those of a user's own run their file.

    `tests` is `execution.tests`; `kept` is the folder of a run's copies, which are used
    before the files themselves (`own.keep`). Raises ConfigError, one line, for a name that
    nobody knows, a file that fails, and a reward that `tests` gives too little to read.
    """
    files = own.files_of(texts)
    copies = own.copies(files, kept) if kept else {}
    terms = []
    for text in texts:
        name, weight = split_term(text)
        if own.is_own(name):
            file, _ = own.split(name)
            reward = own.load(name, copies.get(file, file))
            terms.append(Term(name.rpartition(":")[2], weight, reward, str(file)))
        elif name in TABLE:
            terms.append(Term(name, weight, TABLE[name]))
        else:
            raise ConfigError(
                f"reward.terms: there is no reward {name!r}; expected one of "
                f"{', '.join(TABLE)}, or FILE.py:FUNCTION"
            )
    names = [term.name for term in terms]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"reward.terms: {names.count(name)} terms are named {name}, and each is "
                "logged by its name; rename a function, or add their weights"
            )
    for term in terms:
        if tests == "early_exit" and getattr(term.reward, "needs_all_tests", False):
            raise ConfigError(
                f"reward.terms: {term.name} reads all tests, and execution.tests "
                "early_exit stops at the first that fails; set --execution.tests run_all"
            )
    return tuple(terms)
