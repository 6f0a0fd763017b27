"""Every knob and every default, as typed dataclasses; `Config.validate` runs once.

Functions elsewhere take no defaults for hyper-parameters. An experiment is a Python file
whose `get_config(arg="")` returns a `Config`; the command line overrides fields by dotted
flag. The defaults below are the paper's where it gives them (arXiv:2402.01391, section
4.2) and METHOD's where it is silent; those of the judge stand in execution/settings.py,
which works without this file.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, ClassVar, Literal, Self

from stepcoder_jax import rules
from stepcoder_jax.execution.settings import PoolSettings
from stepcoder_jax.records import InputError


class ConfigError(InputError):
    """A field has a value that cannot work; the message names the field and the mend."""


# Fields that name files, folders or programs of this machine.
PATHS = (
    *("run.folder", "run.compilation_cache", "model.checkpoint", "model.tokenizer"),
    *("data.path", "data.validation", "data.test", "sft.samples", "execution.python"),
)


def is_url(text: str) -> bool:
    """Whether a text is `scheme://...`, which as a path makes a folder named `scheme:`."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


class Section:
    """A dataclass with no other attributes than its fields: a misspelt one is refused.

    Raises ConfigError, with the nearest name, where it is made and where it is assigned to.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __new__(cls, *values: Any, **named: Any) -> Self:
        for name in named:
            cls._require(name)
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        self._require(name)
        kind = globals().get(str(self.__dataclass_fields__[name].type))
        if isinstance(kind, type) and not isinstance(value, kind):
            raise ConfigError(
                f"{type(self).__name__}.{name}: expected a {kind.__name__}, got {value!r}"
            )
        super().__setattr__(name, value)

    @classmethod
    def _require(cls, name: str) -> None:
        known = cls.__dataclass_fields__
        if name in known:
            return
        near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
        meant = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
        raise ConfigError(f"{cls.__name__} has no field {name!r}; {meant}")


@dataclasses.dataclass
class ModelConfig(Section):
    """A decoder; the family and the shape come from `checkpoint` when that is set."""

    checkpoint: str = ""  # Hugging Face folder, "builtin", or "" for random weights
    tokenizer: str = (
        ""  # tokenizer folder; "": the checkpoint's; "builtin": the shipped one
    )
    family: Literal["llama", "mistral", "qwen2", "qwen3", "starcoder2"] = "llama"
    vocab_size: int = 512
    hidden_size: int = 96
    intermediate_size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 24
    max_positions: int = 1024
    rope_theta: float = 10000.0
    rope_scaling: Literal["linear", "llama3", "yarn"] = "linear"
    rope_factor: float = 1.0  # positions are stretched by this (DeepSeek-Coder: 4)
    rope_context: int = 8192  # positions before the stretching (llama3, yarn)
    rope_slow: float = 1.0  # turns over rope_context below which all is stretched
    rope_fast: float = 4.0  # turns above which nothing is (yarn's default: 32)
    rope_amplitude: float = 1.0  # of cosine and sine (yarn: 0.1 ln factor + 1)
    sliding_window: int = 0  # positions that each one sees, itself included; 0: all before
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations
    # fused kernels: cudnn on NVIDIA GPUs with bfloat16, splash on TPUs
    attention: Literal["xla", "cudnn", "splash"] = "xla"
    remat: bool = False  # recompute each layer in the backward pass
    remat_policy: Literal["nothing", "dots"] = "nothing"  # kept: no, or the matrix products
    lora_rank: int = 0  # train adapters of this rank on a frozen base; 0: all weights
    lora_alpha: float = 32.0  # adapters count alpha / rank times
    lora_targets: Literal["attention", "mlp", "all"] = "all"  # projections with adapters
    unroll: int = 1  # layers in one turn of the loop over them; all: faster on CPUs
    shared_trunk: bool = False  # value head on the actor's trunk instead of a critic


@dataclasses.dataclass
class PromptConfig(Section):
    """How a problem is put before the model."""

    template: Literal["deepseek", "plain", "chat"] = "deepseek"  # chat: the tokenizer's own
    # tokens, head included; problems with longer prompts are left out, and named
    max_prompt_length: int = 1024
    fence: str = "```"


@dataclasses.dataclass
class SamplingConfig(Section):
    """Rollouts: n per problem by nucleus sampling (paper: 16, 0.8, 0.9, 1024)."""

    problems_per_step: int = 16
    rollouts_per_problem: int = 16
    max_completion_length: int = 1024
    temperature: float = 0.8
    top_p: float = 0.9  # 1: off
    top_k: int = 0  # 0: off
    min_p: float = 0.0  # share of the largest probability; 0: off
    chunk: int = 32  # tokens decoded between two looks of the host
    slots: int = 0  # rollouts decoded at a time, the others wait; 0: all of an iteration


@dataclasses.dataclass
class OptimizerConfig(Section):
    """AdamW with global-norm clipping and linear warm-up (authors' later release)."""

    # bytes of state per parameter: 8, 2, nearly none (b1, b2 and eps are then not read)
    name: Literal["adamw", "adamw8bit", "adafactor"] = "adamw"
    learning_rate: float = 5e-7
    warmup_steps: int = 0  # optimizer steps
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-6
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0


@dataclasses.dataclass
class PPOConfig(Section):
    """Clipped PPO with a token-level KL penalty in the reward.

    Fields that have nothing to do with a critic, with clipping or with KL (epochs to
    widths, entropy_coef, normaliser, offload_reference, actor) hold for GRPO as well.
    """

    num_epochs: int = 1
    num_minibatches: int = 1
    num_micro_batches: int = 1  # gradient accumulation inside a minibatch
    widths: tuple[int, ...] = ()  # row widths that micro-batches may be trimmed to
    clip_eps: float = 0.2
    value_clip_eps: float = 0.2
    value_coef: float = 1.0  # only with a shared trunk; a separate critic has its own Adam
    entropy_coef: float = 0.0
    kl_coef: float = 0.05
    gamma: float = 1.0
    gae_lambda: float = 0.95
    whiten_advantages: bool = False
    scale_rewards: bool = True  # divide outcome rewards by their running standard deviation
    normaliser: Literal["kept", "completion"] = "kept"
    offload_reference: bool = False  # keep it in the host's memory between its uses
    critic_warmup_steps: int = 0  # iterations in which only the critic learns
    actor: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    critic: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=1.5e-6)
    )


@dataclasses.dataclass
class GRPOConfig(Section):
    """The group's rewards in place of a critic; read with `algorithm` grpo alone.

    The defaults are GRPO's (arXiv:2402.03300; its clip is not given). DAPO
    (arXiv:2503.14476) has clip_high 0.28, average token and kl_coef 0; Dr. GRPO
    (arXiv:2503.20783) scale_by_std False, average constant and kl_coef 0.
    """

    scale_by_std: bool = True  # divide a group's advantages by its standard deviation
    clip_low: float = 0.2
    clip_high: float = 0.2  # above clip_low: clip-higher, room for tokens that were rare
    average: Literal["sequence", "token", "constant"] = "sequence"  # see grpo.divisor
    kl_coef: float = 0.04  # of the k3 estimate in the loss; 0: none


@dataclasses.dataclass
class CCCSConfig(Section):
    """Curriculum of code completion subtasks (section 3.1, Algorithm 1)."""

    enabled: bool = True
    alpha: float = 0.3  # moving average of the pass rate; the paper gives no value
    threshold: float = 0.5  # rho above which a problem moves on; the paper gives no value
    full_fraction: float = 0.0  # share of problems posed at stage 0 whatever their stage


@dataclasses.dataclass
class FGOConfig(Section):
    """Fine-grained optimisation: which completion tokens the policy loss keeps."""

    mask: Literal["executed", "random", "inverse", "none"] = "executed"
    granularity: Literal["statement", "expression"] = "statement"  # expression: see fgo.py
    keep_uncompiled: bool = True  # a program that does not compile keeps all its tokens


@dataclasses.dataclass
class RewardConfig(Section):
    """Outcome rewards by verdict class (eq. 3)."""

    passed: float = 1.0
    wrong: float = -0.3
    runtime: float = -0.6  # runtime, timeout, memory, output
    compile: float = -1.0


@dataclasses.dataclass
class ExecutionConfig(Section):
    """The judge's pool: sandboxed workers on this machine, or a service elsewhere.

    The defaults are PoolSettings' own.
    """

    backend: Literal["local", "http"] = PoolSettings.backend  # http: weaker, see the README
    url: str = PoolSettings.url  # of a SandboxFusion service, for backend "http"
    # 0: one per core; with backend "http" requests at a time, 0: 16
    workers: int = PoolSettings.workers
    tests: Literal["early_exit", "run_all"] = PoolSettings.tests
    # of one test, for problems without a measured limit
    cpu_seconds: float = PoolSettings.cpu_seconds
    memory_mb: int = PoolSettings.memory_mb
    output_mb: int = PoolSettings.output_mb
    python: str = PoolSettings.python  # sandbox interpreter; "": the trainer's own
    # isolation level below which the pool refuses to start
    min_level: int = PoolSettings.min_level
    # start below min_level all the same, with a banner at each step
    allow_unsafe: bool = PoolSettings.allow_unsafe
    # reports kept for programs that are met again (about 10 kB each); 0: none
    cache_size: int = PoolSettings.cache_size


@dataclasses.dataclass
class DataConfig(Section):
    """Where problems come from."""

    path: str = "builtin"  # the generated benchmark, or a problem file to train on
    validation: str = ""  # file of the validation split, where path is a file
    test: str = ""  # file of the test split, where path is a file
    pool_size: int = 0  # problems that RL draws from; 0: all of the train split
    # stop at a bad row, or a prompt that is too long, instead of leaving it out
    strict: bool = False


@dataclasses.dataclass
class MeshConfig(Section):
    """Devices along each axis; -1 takes what is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass
class EvaluationConfig(Section):
    """Greedy pass@1; test is read only before and after a run."""

    every: int = 0  # iterations (of SFT: updates) between validation runs; 0: never
    validation_problems: int = 200
    test_problems: int = 0  # 0: no evaluation before and after the run
    batch_size: int = 100


@dataclasses.dataclass
class SFTConfig(Section):
    """Supervised fine-tuning: linear warm-up, then linear decay to zero.

    The paper's (section 4.2): 3 epochs, 64 examples per update, 2e-5, warm-up over 0.3
    epoch, which is 0.1 of all updates. It gives no weight decay; the rest is ours.
    """

    split: Literal["sft", "train"] = "train"  # "sft": that part of the generated benchmark
    # judged samples, as `stepcoder evaluate --out` and `stepcoder judge` write them, to
    # learn those that passed (RAFT) in place of the split's canonical solutions
    samples: tuple[str, ...] = ()
    per_problem: int = 0  # most samples of one problem, drawn by the seed; 0: no cap
    epochs: float = 3.0
    batch_size: int = 64  # rows; with packing a row holds several examples
    packing: int = 0  # tokens of a packed row; 0: one example per row
    num_micro_batches: int = 1  # gradient accumulation inside a batch
    learning_rate: float = 2e-5
    warmup_fraction: float = 0.1  # of all updates
    weight_decay: float = 0.0
    minutes: float = 0.0  # stop after this much wall time; 0: no limit


@dataclasses.dataclass
class RunConfig(Section):
    """One run and its folder."""

    folder: str = "runs/run"
    total_steps: int = 1000
    seed: int = 0
    save_every: int = 50  # iterations (of SFT: updates) between checkpoints
    keep: int = 2  # checkpoints kept beside the best one
    # go on with the run in the folder; auto: if there is one, else begin it
    resume: Literal["no", "yes", "auto"] = "no"
    step: int = -1  # the checkpoint to go on from; -1: the newest
    # iterations in a row without a row that the judge could judge, after which a run stops
    max_empty: int = 10
    rollouts_every: int = 1  # iterations between rollouts/STEP.jsonl files; 0: none
    tensorboard: bool = True
    compilation_cache: str = ""  # folder of XLA's persistent cache; "": none


@dataclasses.dataclass
class Config(Section):
    """A whole run."""

    algorithm: Literal["ppo", "grpo"] = "ppo"  # grpo: no critic; see grpo.py
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    ppo: PPOConfig = dataclasses.field(default_factory=PPOConfig)
    grpo: GRPOConfig = dataclasses.field(default_factory=GRPOConfig)
    cccs: CCCSConfig = dataclasses.field(default_factory=CCCSConfig)
    fgo: FGOConfig = dataclasses.field(default_factory=FGOConfig)
    reward: RewardConfig = dataclasses.field(default_factory=RewardConfig)
    execution: ExecutionConfig = dataclasses.field(default_factory=ExecutionConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    sft: SFTConfig = dataclasses.field(default_factory=SFTConfig)

    @property
    def batch_size(self) -> int:
        """Rollouts per iteration, B."""
        return self.sampling.problems_per_step * self.sampling.rollouts_per_problem

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Config:
        """The config that `dataclasses.asdict` made `tree` from, back through JSON.

        Raises ConfigError for a field that this version does not have.
        """
        config = _build(cls, tree)
        if isinstance(config.run.resume, bool):  # as older runs have it
            config.run.resume = "yes" if config.run.resume else "no"
        return config

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts, for a file: their paths mean the same from any folder."""
        return absolute_paths(dataclasses.asdict(self))

    def validate(self) -> None:
        """Raise ConfigError for the first field whose value cannot work."""
        for field in rules.fields_of(self):
            expected = rules.check_field(field)
            if expected:
                raise ConfigError(
                    f"{field.name}: expected {expected}, got {field.value!r}; set "
                    f"--{field.name}"
                )
        for name, holds, expected in chain(_path_rules(self), _rules(self)):
            if not holds:
                raise ConfigError(
                    f"{name}: expected {expected}, got {_look_up(self, name)!r}; set "
                    f"--{name}"
                )


def absolute_paths(tree: dict[str, Any]) -> dict[str, Any]:
    """The config as nested dicts with its paths made absolute, from the present folder."""
    found = dict(tree)
    for section, _, name in (path.partition(".") for path in PATHS):
        value = found.get(section, {}).get(name)
        # an interpreter may be one on PATH
        if value and (name != "python" or os.sep in value):
            found[section] = found[section] | {name: _absolute(value)}
    return found


def _absolute(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_absolute(item) for item in value]
    return value if value == "builtin" or is_url(value) else os.path.abspath(value)


def _look_up(config: Config, name: str) -> Any:
    """The value of the field with this dotted name."""
    return functools.reduce(getattr, name.split("."), config)


def _build(cls: type[Section], tree: dict[str, Any]) -> Any:
    default = cls()
    for name, value in tree.items():
        cls._require(name)  # it may be a field of another version
        old = getattr(default, name)
        if isinstance(old, Section):
            value = _build(type(old), value)
        setattr(default, name, tuple(value) if isinstance(old, tuple) else value)
    return default


def _path_rules(config: Config) -> Iterator[tuple[str, bool, str]]:
    """As `_rules`, of the fields in PATHS."""
    for name in PATHS:
        value = _look_up(config, name)
        texts = value if isinstance(value, tuple) else (value,)
        yield name, not any(map(is_url, texts)), "a path of this machine, and no URL"


def _rules(config: Config) -> Iterator[tuple[str, bool, str]]:
    """Field, whether its value can work, and what would."""
    sampling, ppo, is_grpo = config.sampling, config.ppo, config.algorithm == "grpo"
    heads = config.model.num_heads
    yield "model.num_kv_heads", *_divides(config.model.num_kv_heads, heads)
    model = config.model
    yield (
        "model.sliding_window",
        model.sliding_window == 0 or (model.family != "llama" and model.sliding_window > 0),
        "0 (none), or a number of positions where model.family is not llama",
    )
    yield "model.unroll", *_divides(model.unroll, model.num_layers)
    yield (
        "model.attention",
        model.attention != "cudnn" or model.dtype == "bfloat16",
        "xla or splash, since cuDNN needs model.dtype=bfloat16",
    )
    yield (
        "ppo.offload_reference",
        not (ppo.offload_reference and model.lora_rank),
        "False, since with model.lora_rank the reference is the base itself",
    )
    least, why = (2, " (a group of algorithm=grpo)") if is_grpo else (1, "")
    yield (
        "sampling.rollouts_per_problem",
        sampling.rollouts_per_problem >= least,
        f"at least {least}{why}",
    )
    yield "ppo.num_minibatches", *_divides(ppo.num_minibatches, config.batch_size)
    rows = config.batch_size // max(1, ppo.num_minibatches)
    yield "ppo.num_micro_batches", *_divides(ppo.num_micro_batches, rows)
    yield (
        "execution.url",
        config.execution.backend == "local"
        or config.execution.url.startswith(("http://", "https://")),
        "the http:// or https:// address of a service (execution.backend is http)",
    )
    yield (
        "evaluation.test_problems",
        not config.evaluation.test_problems
        or config.data.path == "builtin"
        or bool(config.data.test),
        "0, since there is no file of test problems (or set --data.test FILE)",
    )
    sft = config.sft
    yield (
        "sft.per_problem",
        bool(sft.samples) or not sft.per_problem,
        "0, since there is no sft.samples to cap",
    )
    yield "sft.num_micro_batches", *_divides(sft.num_micro_batches, sft.batch_size)
    positions = config.prompt.max_prompt_length + sampling.max_completion_length
    yield (
        "prompt.max_prompt_length",
        positions <= config.model.max_positions,
        f"at most model.max_positions={config.model.max_positions} less "
        f"sampling.max_completion_length={sampling.max_completion_length}",
    )


def _divides(part: int, whole: int) -> tuple[bool, str]:
    return part >= 1 and whole % part == 0, f"a divisor of {whole}"
