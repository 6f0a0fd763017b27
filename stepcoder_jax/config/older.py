"""The config.json of an older run, in the fields of this version: two tables.

A config.json has every field of the version that wrote it. Whoever renames or removes a
field, or gives its values other names, adds a row to CHANGED. Whoever adds a field adds a
row to ADDED: the value that means what was done before the field was there, which need not
be today's default. tests/config/test_older.py keeps one config.json of each earlier form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stepcoder_jax.config.section import ConfigError

NEVER = 2**31 - 1  # iterations: no run is so long


class Change(NamedTuple):
    """What became of a field: `now` is its name today, "" where it is gone.

    `values` are those with another name today. Of a field that is gone they are those that
    mean what is done today (whatever they point to); a run with any other is refused.
    """

    now: str
    values: Mapping[Any, Any]


CHANGED: dict[str, Change] = {
    "run.resume": Change("run.resume", {False: "no", True: "yes"}),  # auto came
    "run.tensorboard": Change("run.track", {True: "tensorboard", False: "jsonl"}),
}

ADDED: dict[str, Any] = {
    "evaluation.beside": "",  # each run was shown alone
    "run.step": -1,  # a run went on from its newest checkpoint
    "run.max_empty": NEVER,  # rows that could not be judged ended no run
    "run.join_minutes": 5.0,  # JAX waited so long
    # no host was watched, and no allocation's end was looked at
    **{"run.lost_seconds": 30.0, "run.stall_minutes": 15.0, "run.walltime": 0.0},
    "cccs.prefix": "cccs",  # the paper's rule was the only one
    "cccs.demote": 0.0,  # and no problem went back
    "data.difficulties": (),  # all were learnt from
    "prompt.show_visible": False,  # no prompt had tests of its own
    "data.contexts": (),  # problems were posed, and nothing else
    "prompt.variant": "direct",
    # of the rewards in a context there were none
    **{"reward.program": "paper", "reward.explanation": "paper"},
    **{"reward.encoder": "", "reward.one_scalar": False},
    # eq. 3 was all that a program earned
    **{"reward.terms": ("stepcoder",), "reward.located_alpha": "paper"},
    # and no head was asked
    **{"reward.rlcf_discriminator": "", "reward.rlcf_locate": True},
    **{"coderl.baseline": "greedy", "coderl.critic": "", "coderl.supervised": 1.0},
    "ppo.coupling": "printed",  # no answer had an explanation
    "ppo.kl_warning": 0.0,  # nobody was warned
    "ppo.value_unit": "token",  # each token had a value
    # no records were learnt
    "sft.records": (),
    "sft.per_wrong": 1,
    "sft.blank_wrong": 0.0,
    "sft.control": "none",
    # rewards were judged against the group's, and the loss was clipped by tokens
    **{"grpo.estimator": "grpo", "grpo.policy_loss": "clipped"},
    **{"grpo.sequence_clip_low": 3e-4, "grpo.sequence_clip_high": 4e-4},
    "sampling.extra_problems": 0,  # a group without a spread stayed
    "sampling.buffer": 0,  # an iteration learnt from its own rollouts
    **{"data.sample": "uniform", "data.profile": ""},  # each problem as often
    # nothing but the algorithm steered learning
    **{"ppo.overlong_buffer": 0, "ppo.tis_cap": 0.0, "ppo.target_kl": 0.0},
    **{"ppo.adaptive_kl_target": 0.0, "ppo.adaptive_kl_horizon": 10000},
    **dict.fromkeys(("ppo.actor.decay", "ppo.critic.decay"), "none"),
    **dict.fromkeys(("ppo.actor.floor", "ppo.critic.floor"), 0.0),
    "sampling.layout": "replicated",  # the only one
    # generated tokens were not counted
    **dict.fromkeys(("run.total_tokens", "evaluation.every_tokens"), 0),
}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts to one dict with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def read(
    tree: Mapping[str, Any],
    source: str,
    changed: Mapping[str, Change],
    added: Mapping[str, Any],
) -> dict[str, Any]:
    """Dotted name of today -> value, from the nested dicts that a version wrote.

    Raises ConfigError, with `source`, for a value that nothing means any more.
    """
    found = dict(added)
    for name, value in flatten(tree).items():
        change = changed.get(name)
        if change is None:
            found[name] = value
            continue
        # a list is no key, and no such value has a new name
        is_known = not isinstance(value, list) and value in change.values
        if change.now:
            found[change.now] = change.values[value] if is_known else value
        elif not is_known:
            raise ConfigError(
                f"{name}: this version cannot do {value!r} any more, and {source} has it; "
                "use the version that wrote it"
            )
    return found
