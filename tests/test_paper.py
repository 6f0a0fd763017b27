"""The presets of the paper's tables: every arm builds, and fits where it says it does."""

import ast
import dataclasses
import functools
import re
from pathlib import Path

import jax
import pytest
from jax.sharding import AbstractMesh

from experiments.benchmarks import plans
from stepcoder_jax.cli.experiment import parse_config
from stepcoder_jax.config import ConfigError
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import ALGORITHMS
from stepcoder_jax.learning import updates
from stepcoder_jax.models import policy
from stepcoder_jax.planning import counting
from stepcoder_jax.runs.experiment import load_experiment

ROOT = Path(__file__).parent.parent
PAPER, SMALL = "experiments/paper.py", "experiments/paper_1b.py"
CARDS = {"80gb": 80, "40gb": 40, "24gb": 24}
GIB = 2**30


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def docstring(file):
    return ast.get_docstring(ast.parse((ROOT / file).read_text()))


def arms(file):
    """The arms in the table of expected numbers, as `get_config` calls them."""
    table = docstring(file).split("(the backbone)")[1].split("What each")[0]
    names = re.findall(r"^ {11}(\w+) ", table, re.MULTILINE)
    return ["" if name == "StepCoder" else name for name in names]


def all_presets():
    small = [f"{SMALL}:{arm}@{card}" for arm in arms(PAPER) for card in CARDS]
    large = [f"{row.experiment}" for row in plans.ROWS.values()]
    large += [f"{PAPER}:ppo@v5e-64", f"{PAPER}:sft@v6e-32", f"{PAPER}:grpo@gpu-8"]
    large += [f"{SMALL}:grpo@v5e-16"]
    return [f"{PAPER}:{arm}" for arm in arms(PAPER)] + small + large + [PAPER, SMALL]


def command_of(file, name):
    """The docstring's own command, for this preset."""
    words = re.search(
        r"^Command +stepcoder train (.+?)\nArms", docstring(file), re.DOTALL | re.MULTILINE
    )
    _, *flags = words[1].split()
    assert len(flags) == 8
    return [name, *flags]


def test_the_table_has_every_arm():
    assert len(arms(PAPER)) == 7
    with pytest.raises(ConfigError, match=r"an arm of .*'no_such'") as error:
        load_experiment(f"{PAPER}:no_such")
    assert all(repr(arm) in str(error.value) for arm in arms(PAPER))


@pytest.mark.parametrize("name", all_presets())
def test_every_preset_is_valid_by_the_docstrings_own_command(name):
    file, _, arg = name.partition(":")
    arm = arg.partition("@")[0]
    config = parse_config("sft" if arm == "sft" else "train", command_of(file, name))
    config.validate()
    assert config.data.test == "TEST.json" and config.model.checkpoint == "FOLDER"
    assert config.algorithm == ("grpo" if arm.startswith("grpo") else "ppo")
    assert config.cccs.enabled == (arm not in ("ppo", "grpo", "no_cccs"))
    assert (config.fgo.mask == "executed") == (arm not in ("ppo", "grpo", "no_fgo"))
    assert config.run.folder.startswith("runs/paper")


@pytest.mark.parametrize(("arm", "twin"), [("grpo", "ppo"), ("grpo_stepcoder", "")])
def test_grpo_changes_the_algorithm_alone(arm, twin):
    one, other = (load_experiment(f"{PAPER}:{x}") for x in (arm, twin))
    assert (one.algorithm, one.run.folder) == ("grpo", f"runs/paper_{arm}")
    one.algorithm, one.run.folder = other.algorithm, other.run.folder
    assert one == other


def test_folders_of_runs_differ():
    folders = {load_experiment(name).run.folder for name in all_presets()}
    assert len(folders) == len(all_presets()) - 2  # the last two are the first of each


def test_wrong_cards_and_arms_are_named():
    for arg in ("ppo@16gb", "pp0@24gb"):
        with pytest.raises(ConfigError, match=f"ARM@CARD.*v5e-16.*{arg}"):
            load_experiment(f"{SMALL}:{arg}")
    for arg in ("ppo@v5e-65", "pp0@v5e-64", "@"):
        with pytest.raises(ConfigError, match=f"ARM@SLICE.*v5e-64.*{arg}"):
            load_experiment(f"{PAPER}:{arg}")


@pytest.mark.parametrize(("file", "rows"), [(PAPER, 4), (SMALL, 1)])
def test_the_tables_of_slices_are_those_of_the_plans(file, rows):
    """The docstrings' against the JSON that experiments/benchmarks/plans.py wrote."""
    names = [name for name, row in plans.ROWS.items() if row.experiment.startswith(file)]
    assert len(names) == rows
    assert plans.table(names) in docstring(file)
    for name in names:
        found = plans.load(name)
        assert plans.Row(*(found[x] for x in plans.Row._fields)) == plans.ROWS[name]
        programs = plans.compiled_of(found)
        needs = found["plan"]["counted"] | {one.name: one.total for one in programs}
        assert not any(one.refused for one in programs)
        assert max(needs.values()) <= 0.95 * found["plan"]["memory"], name


@pytest.mark.parametrize("name", ["v5e-16", "v5p-128"])
def test_what_the_plans_count_is_what_is_counted_now(name):
    kept, now = plans.load(name)["plan"], plans.summary(name)
    assert kept["counted"] == pytest.approx(now["counted"], rel=0.05)
    assert kept["seconds"] == pytest.approx(now["seconds"], rel=0.05)
    assert (kept["layout"], kept["mesh"]) == (now["layout"], now["mesh"])


def test_the_count_is_near_the_compilers_word_and_no_weight_takes_a_tenth():
    """Where a row has been compiled: 15 % of XLA's peak; of all collectives of learning,
    which are most of an iteration's, a tenth."""
    compiled = 0
    for name in plans.ROWS:
        found = plans.load(name)
        for one in plans.compiled_of(found):
            peak, count = one.peak + one.beside, found["plan"]["counted"][one.name]
            if (name, one.name) == ("v5p-128", "prepare"):  # see `planning.needs`
                assert peak < count < 1.5 * peak
            else:
                assert count == pytest.approx(peak, rel=0.15), (name, one.name)
            compiled += 1
            if one.name == "learn":
                whole = sum(x.received for x in one.collectives)
                first = max(x.received for x in one.collectives if x.kind)
                assert first <= 0.1 * whole, (name, first / whole)
    assert compiled


def stated(file):
    """Rows of the docstring's table of memory: name -> GiB of each column."""
    names = r"state  reference  gradients  kept  decoding  cache  at most\n"
    table = re.split(names, docstring(file))[1].split("\n\n")[0]
    rows = [line.split() for line in table.splitlines()]
    return {row[0]: [float(x) for x in row[1:]] for row in rows}


@pytest.mark.parametrize("file", [PAPER, SMALL])
def test_the_memory_stated_is_the_memory_counted(file):
    for row, sizes in stated(file).items():
        arg = "" if row == "(none)" else row
        config = load_experiment(f"{file}:{arg}")
        config.validate()
        parts = counting.count(config, 8 if file == PAPER else 1)
        *counted, most = [size / GIB for size in (*parts[:6], parts.at_most)]
        *expected, stated_most = sizes
        # what the backward pass keeps is JAX's own affair, and may change with its version
        assert counted.pop(3) == pytest.approx(expected.pop(3), rel=0.25), row
        assert counted == pytest.approx(expected, abs=0.051), row
        assert most == pytest.approx(stated_most, abs=0.6), row
        card = CARDS[arg.partition("@")[2] or "80gb"]
        assert most <= 0.9 * card, row


def test_sft_takes_what_it_says():
    for file, devices, stated_gib in ((PAPER, 8, "15.7"), (SMALL, 1, "25.1")):
        model = dataclasses.replace(load_experiment(f"{file}:sft").model, attention="xla")
        key = jax.eval_shape(lambda: jax.random.key(0))
        actor = jax.eval_shape(functools.partial(policy.init_params, model), key)
        weights = sum(x.size for x in jax.tree.leaves(actor))
        assert f"{20 * weights / devices / GIB:.1f}" == stated_gib
        assert f"{stated_gib} " in docstring(file)


@pytest.mark.parametrize("arm", ["", "grpo", "sft"])
def test_everything_divides_over_eight_devices(arm):
    config = load_experiment(f"{PAPER}:{arm}")
    mesh = AbstractMesh(sharding.mesh_sizes(config.mesh, 8), sharding.AXES)
    assert dict(mesh.shape) == {"data": 1, "fsdp": 8, "tensor": 1}
    sharding.check_batch(config, mesh)
    assert config.sft.batch_size % (config.sft.num_micro_batches * 8) == 0
    assert config.sampling.slots % 8 == 0
    key = jax.eval_shape(lambda: jax.random.key(0))
    actor = jax.eval_shape(functools.partial(policy.init_params, config.model), key)
    init = functools.partial(updates.init_state, ALGORITHMS[config.algorithm], config)
    state = jax.eval_shape(init, actor)
    places = sharding.param_shardings(mesh, state)
    kernel = state.actor["trunk"]["layers"]["q_proj"]["kernel"]
    share = places.actor["trunk"]["layers"]["q_proj"]["kernel"].shard_shape(kernel.shape)
    assert share == (32, 512, 4096)
    assert (state.critic is None) == (arm == "grpo")
