"""Every metric that a run can write, with its unit and meaning: one table.

`python -m stepcoder_jax.tracking.metrics > stepcoder_jax/tracking/METRICS.md` writes it for
readers. Whoever adds a metric adds a row here: the tests of whole runs hold that the rows
of metrics.jsonl have these names and no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from stepcoder_jax.config import Config
from stepcoder_jax.records import Verdict


class Metric(NamedTuple):
    """A row of the table. VERDICT, DIFFICULTY and TERM in a name stand for any one."""

    name: str
    unit: str
    meaning: str


class Kind(NamedTuple):
    """Metrics that come together: with one kind of run, or of config."""

    title: str
    metrics: tuple[Metric, ...]


SHARE, NATS, TOKENS, SECONDS, COUNT = "share", "nats", "tokens", "s", "count"
REWARD, RATIO = "reward", "ratio"
# What a whole program can have; the rewards are of these.
OUTCOMES = tuple(str(x) for x in Verdict if x not in (Verdict.INFRA, Verdict.NOT_RUN))


def _rows(*rows: tuple[str, str, str]) -> tuple[Metric, ...]:
    return tuple(Metric(*row) for row in rows)


# of saves, beside which a run goes on
SAVES = (
    ("seconds/save_blocked", SECONDS, "for which the run stood still since the row before"),
    ("seconds/save", SECONDS, "of the save that ended since then, from copy to seal"),
)

KINDS = {
    "rl": Kind(
        "Of each iteration of `stepcoder train`",
        _rows(
            ("reward", REWARD, "mean outcome reward of valid rollouts"),
            ("reward_spread", REWARD, "largest less smallest outcome reward of them"),
            ("pass_rate", SHARE, "valid rollouts that pass, at whatever stage"),
            ("verdict/VERDICT", SHARE, "valid rollouts with this verdict"),
            ("verdict/infra", SHARE, "rollouts that our own machinery failed on"),
            ("verdict/unfaithful", SHARE, "rollouts whose value no test could be asked of"),
            ("batch/valid_rows", COUNT, "rollouts that teach: neither of the two above"),
            ("batch/empty_in_a_row", COUNT, "iterations in a row without any of them"),
            ("tokens/generated", TOKENS, "completion tokens since the start of the run"),
            ("completion_length", TOKENS, "mean length of a completion"),
            ("truncated_fraction", SHARE, "completions cut off by the limit on length"),
            ("kept_mass", SHARE, "probability that top-p, top-k and min-p left, per token"),
            (
                "logprob_mismatch",
                NATS,
                "mean distance of the sampler's logprob from the learner's",
            ),
            ("logprob_mismatch_max", NATS, "the largest of them"),
            ("kl", NATS, "KL(policy, reference) per token, over the whole vocabulary"),
            ("kl_executed", NATS, "the same over tokens that FGO keeps"),
            ("kl_unexecuted", NATS, "the same over tokens that FGO drops"),
            (
                "kl_sampled",
                NATS,
                "its estimate from drawn tokens: logprob less reference's",
            ),
            ("entropy", NATS, "of the policy per kept token, in the updates"),
            ("advantage", REWARD, "mean over kept tokens, as the updates take it"),
            (
                "masked_fraction",
                SHARE,
                "completion tokens without a part in the policy loss",
            ),
            ("policy_loss", REWARD, "clipped surrogate, mean over kept tokens"),
            ("clip_fraction", SHARE, "kept tokens whose gradient the clip holds back"),
            ("approx_kl", NATS, "KL(policy of the rollouts, policy) in the updates, by k3"),
            ("ratio_max", RATIO, "largest policy / policy of the rollouts of a kept token"),
            ("ratio_min", RATIO, "the smallest"),
            (
                "ratio_max_first",
                RATIO,
                "the largest in the first update: 1 but for rounding",
            ),
            ("ratio_min_first", RATIO, "the smallest in the first update"),
            ("actor_grad_norm", "norm", "of the actor's gradient before it is cut, mean"),
            ("fgo/masked", SHARE, "completion tokens of valid rollouts that FGO drops"),
            ("fgo/masked_VERDICT", SHARE, "the same, of the rollouts with this verdict"),
            ("fgo/uncertain", COUNT, "programs too large or odd to label: all is kept"),
            ("fgo/dropped_but_ran", SHARE, "dropped tokens that the judge saw run: 0"),
            ("cccs/stage0_share", SHARE, "rollouts posed whole, nothing given"),
            (
                "cccs/given_share",
                SHARE,
                "conditionals of the solution that are given, mean",
            ),
            ("cccs/pass_rate_stage0", SHARE, "valid rollouts posed whole that pass"),
            ("cccs/pass_rate_given", SHARE, "valid rollouts of the others that pass"),
            ("cccs/mean_stage", "stage", "mean over the problems of the pool"),
            ("cccs/done_share", SHARE, "problems of the pool that are at stage 0"),
            ("cccs/visits", COUNT, "times that a problem was posed, mean"),
            ("judge/programs", COUNT, "reports given in the iteration"),
            ("judge/cache_hits", COUNT, "those that came from the cache"),
            ("judge/restarts", COUNT, "workers that were replaced"),
            ("judge/retries", COUNT, "programs that were tried again"),
            ("judge/unfaithful", COUNT, "failed reports with a value that is not carried"),
            ("judge/over_value_limit", COUNT, "failed reports with a value too large"),
            ("judge/verdict/VERDICT", COUNT, "reports with this verdict"),
            ("judge/verdict/infra", COUNT, "reports of our own failures"),
            ("judge/seconds_p50", SECONDS, "median time of a worker for a program"),
            ("judge/seconds_p95", SECONDS, "its 95th percentile"),
            ("judge/seconds_p99", SECONDS, "its 99th percentile"),
            ("judge/level", "level", "of isolation; 3: all layers hold"),
            ("judge/unsafe", "0 or 1", "1: a layer that was wanted is missing"),
            ("seconds/sample", SECONDS, "drawing completions"),
            ("seconds/judge", SECONDS, "waiting for verdicts after the last was drawn"),
            ("seconds/feedback", SECONDS, "rewards and labels of tokens"),
            ("seconds/update", SECONDS, "scores, advantages and updates"),
            ("seconds/iteration", SECONDS, "all of it, a validation included"),
            ("hosts/slowest", "index", "of the host whose parts took longest; 0 alone"),
            *SAVES,
        ),
    ),
    "ppo": Kind(
        "With a critic (`--algorithm ppo`)",
        _rows(
            (
                "reward_std",
                REWARD,
                "running spread of outcomes, which rewards are divided by",
            ),
            ("value", REWARD, "mean value that the critic gave before the updates"),
            ("return", REWARD, "mean return, what it should have given"),
            ("explained_variance", SHARE, "1 - Var(return - value) / Var(return), of all"),
            ("value_bias/VERDICT", REWARD, "mean value less return of this verdict's rows"),
            ("value_rmse/VERDICT", REWARD, "root of the mean square of the same"),
            ("value_loss", "reward^2", "half the clipped squared error, mean over tokens"),
            ("critic_grad_norm", "norm", "of the critic's gradient before it is cut, mean"),
        ),
    ),
    "grpo": Kind(
        "With groups (`--algorithm grpo`)",
        _rows(
            ("kl_loss", NATS, "k3 of KL(policy, reference) per kept token, in the loss"),
            ("grpo/equal_groups", COUNT, "groups whose valid rewards are all equal"),
            ("grpo/equal_share", SHARE, "their share: they teach nothing"),
            ("grpo/group_std", REWARD, "mean spread of the rewards of the other groups"),
        ),
    ),
    "buffer": Kind(
        "With rollouts of the last iterations (`--sampling.buffer`)",
        _rows(
            ("buffer/rows", COUNT, "rollouts that a batch is drawn from"),
            ("buffer/stale_share", SHARE, "of the batch, rollouts of iterations before"),
            ("buffer/mean_age", COUNT, "mean age of the batch's rollouts in iterations"),
        ),
    ),
    "coderl": Kind(
        "With returns against the greedy program (`--algorithm coderl`)",
        _rows(
            (
                "coderl/baseline",
                REWARD,
                "mean reward of the greedy programs; 0: no baseline",
            ),
            ("coderl/token_value", SHARE, "mean q_t over tokens; 1: no critic"),
        ),
    ),
    "supervised": Kind(
        "Where it learns written programs as well (`--coderl.supervised`)",
        _rows(
            ("ce_loss", NATS, "per token of the written programs, in the updates"),
        ),
    ),
    "dynamic": Kind(
        "With dynamic sampling (`--sampling.extra_problems`)",
        _rows(
            ("dynamic/spread_before", SHARE, "groups drawn first with a gradient"),
            ("dynamic/spread_after", SHARE, "groups with a gradient that are learnt from"),
            ("dynamic/extra_rollouts", COUNT, "rollouts beyond the batch"),
            (
                "dynamic/passes_per_1000_tokens",
                COUNT,
                "programs that pass, per 1000 tokens drawn",
            ),
        ),
    ),
    "overlong": Kind(
        "Where long answers are punished (`--ppo.overlong_buffer`)",
        _rows(
            ("overlong_penalty", REWARD, "mean punishment for length of valid rollouts"),
            ("overlong_share", SHARE, "valid rollouts that have one"),
        ),
    ),
    "tis": Kind(
        "With truncated importance weights (`--ppo.tis_cap`)",
        _rows(
            ("tis_weight", RATIO, "mean weight of a kept token: policy / what drew it"),
            ("tis_capped", SHARE, "kept tokens that the cap holds back"),
        ),
    ),
    "target_kl": Kind(
        "Where updates may end early (`--ppo.target_kl`, several updates an iteration)",
        _rows(
            ("updates", COUNT, "updates of the iteration that were taken"),
        ),
    ),
    "adaptive_kl": Kind(
        "Where the KL penalty is steered (`--ppo.adaptive_kl_target`)",
        _rows(
            ("kl_coef", "weight", "of the KL penalty in this iteration"),
        ),
    ),
    "terms": Kind(
        "Where programs earn `--reward.terms`: not with `--data.contexts`",
        _rows(
            ("reward/TERM", REWARD, "the part of `reward` that this one of them is"),
        ),
    ),
    "contexts": Kind(
        "Where failed programs are mended (`--data.contexts`)",
        _rows(
            ("split/tests", SHARE, "tests that the answer passes, mean"),
            ("split/codebleu", "0 to 1", "CodeBLEU to the nearest right answer, mean"),
            ("split/explanation", "cosine", "explanation's to the siblings', mean"),
            ("split/copied", SHARE, "answers that are the wrong program again"),
            ("split/without_code", SHARE, "answers in which no program was found"),
            ("split/reward_explanation", REWARD, "R(e), mean of those that explain"),
            ("split/reward_program", REWARD, "R(r), mean of those with a program"),
            ("split/explained", SHARE, "answers that open with an explanation"),
        ),
    ),
    "grpo contexts": Kind(
        "Of the explanations' own groups (`--algorithm grpo` with `--data.contexts`)",
        _rows(
            ("grpo/equal_groups_explained", COUNT, "as grpo/equal_groups, by R(e)"),
            ("grpo/equal_share_explained", SHARE, "as grpo/equal_share, by R(e)"),
            ("grpo/group_std_explained", REWARD, "as grpo/group_std, by R(e)"),
        ),
    ),
    "sft": Kind(
        "Of each update of `stepcoder sft`",
        _rows(
            ("epoch", COUNT, "passes over the examples that are over"),
            ("loss", NATS, "per completion token, before the update"),
            ("learning_rate", "rate", "of the update"),
            ("tokens", TOKENS, "in the batch, prompts included"),
            ("padding", SHARE, "places of the batch without a token"),
            ("tokens_per_second", "tokens / s", "of the update"),
            ("seconds/update", SECONDS, "of the update"),
            *SAVES,
        ),
    ),
    "validation": Kind(
        "Where a run validates (`--evaluation.every`); null in rows where it was not due",
        _rows(
            ("validation/pass@1", SHARE, "problems whose greedy program passes"),
            ("validation/pass@1_DIFFICULTY", SHARE, "the same of one difficulty"),
            ("validation/compiles", SHARE, "greedy programs that compile"),
        ),
    ),
    "sft validation": Kind(
        "Beside it in `stepcoder sft`, where canonical solutions are known",
        _rows(
            ("validation/loss", NATS, "per token of the canonical solutions"),
            ("validation/perplexity", "e^nats", "exp of that loss"),
        ),
    ),
}


def kinds_of(config: Config, *, is_sft: bool) -> list[str]:
    """The kinds that the rows of a run of this config have."""
    ours, ppo = config.algorithm, config.ppo
    has_contexts = bool(config.data.contexts)
    updates = ppo.num_epochs * ppo.num_minibatches
    has = {
        "rl": not is_sft,
        ours: not is_sft,
        "buffer": not is_sft and config.sampling.buffer > 0,
        "supervised": not is_sft and config.learnt_rows > config.batch_size,
        "dynamic": not is_sft and config.sampling.extra_problems > 0,
        "overlong": not is_sft and ppo.overlong_buffer > 0,
        "tis": not is_sft and ppo.tis_cap > 0,
        "target_kl": not is_sft and ppo.target_kl > 0 and updates > 1,
        "adaptive_kl": not is_sft and ppo.adaptive_kl_target > 0,
        "terms": not is_sft and not has_contexts,
        "contexts": not is_sft and has_contexts,
        f"{ours} contexts": not is_sft and has_contexts,
        "sft": is_sft,
        "validation": config.evaluation.has_validation,
        "sft validation": is_sft and config.evaluation.has_validation,
    }
    return [kind for kind in KINDS if has.get(kind)]


def expand(name: str) -> list[str]:
    """The names that a row of the table stands for, one for each VERDICT."""
    if "VERDICT" not in name:
        return [name]
    return [name.replace("VERDICT", verdict) for verdict in OUTCOMES]


def complaint(written: Iterable[str], kinds: Iterable[str]) -> str:
    """What a run wrote that the table has not, or the other way round; "" where they agree.

    `written` are the names of a row, "step" left out.
    """
    names = [x for kind in kinds for row in KINDS[kind].metrics for x in expand(row.name)]
    unknown, silent = set(written), []
    for name in names:
        pattern = re.sub("DIFFICULTY|TERM", ".+", re.escape(name))
        found = {x for x in unknown if re.fullmatch(pattern, x)}
        unknown -= found
        if not found:
            silent.append(name)
    said = []
    if unknown:
        said.append(f"written, and not in KINDS: {', '.join(sorted(unknown))}")
    if silent:
        said.append(f"in KINDS, and not written: {', '.join(silent)}")
    return "tracking/metrics.py: " + "; ".join(said) if said else ""


def table() -> str:
    """METRICS.md."""
    parts = [
        "# Metrics of a run",
        "Made from `tracking/metrics.py` by `python -m stepcoder_jax.tracking.metrics`; do "
        "not edit it here.",
        "A line of `metrics.jsonl` is one iteration (of SFT: one update), `step` its "
        "number from 0. TensorBoard and Weights & Biases get the same names. `null` is a "
        "number that the iteration could not measure.",
        f"VERDICT is one of {', '.join(OUTCOMES)}; DIFFICULTY one of the problems', TERM "
        "of `reward.terms`. Nats are per token. A token is kept where FGO gives it a part "
        "in the policy loss.",
    ]
    for kind in KINDS.values():
        rows = [f"| `{x.name}` | {x.unit} | {x.meaning} |" for x in kind.metrics]
        head = ["| name | unit | meaning |", "|---|---|---|"]
        parts += [f"## {kind.title}", "\n".join(head + rows)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(table(), end="")
