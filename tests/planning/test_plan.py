"""Plans: the count by kind, formulas against XLA's own, what is said of bad input."""

import functools
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.cli.experiment import parse_config
from stepcoder_jax.config import MeshConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.planning import (
    chips,
    compiling,
    counting,
    dividing,
    needs,
    plan,
    programs,
    roofline,
    search,
    showing,
    work,
)
from stepcoder_jax.runs.experiment import load_experiment
from tests import kit

ROOT = Path(__file__).parents[2]
PAPER = str(ROOT / "experiments" / "paper.py")
NAMES = "init prepare empty read fill resize advance learn gather"
TINY = """
from stepcoder_jax.config import MeshConfig
from tests import kit


def get_config(arg=""):
    config = kit.tiny_config()
    config.model = kit.tiny_model(attention="splash", dtype="bfloat16", remat=True)
    config.ppo.num_minibatches = 1
    config.mesh = MeshConfig(data=1, fsdp=4, tensor=1)
    config.algorithm = "grpo"
    return config
"""


@functools.cache
def paper():
    config = load_experiment(PAPER)
    return config, counting.Shapes(config)


def small(**model):
    """A tiny run, of one minibatch and one micro-batch."""
    config = kit.tiny_config()
    config.model = kit.tiny_model(**model)
    config.ppo.num_minibatches = 1
    return config


def test_topologies_by_their_names():
    found = chips.parse("v5p:2x2x4")
    assert (found.chip.name, found.size, found.hosts) == ("v5p", 16, 4)
    assert chips.parse("h100:8").hosts == 1 and chips.parse("v6e:1x1").hosts == 1
    for name in ("v5e", "v5e:3x3", "v5e:2x2x2", "v5p:4x4", "tpu:8", "h100:0", "h100:2x2"):
        with pytest.raises(chips.PlanError, match=f"no '{name}'.*v6e:.1x1.*h100:N"):
            chips.parse(name)


def test_every_topology_said_to_be_there_is_there():
    for part in chips.known().split("}, "):
        kind, _, shapes = part.partition(":{")
        for shape in shapes.rstrip("}").split(","):
            if shapes and "N" not in shape:
                assert chips.parse(f"{kind}:{shape}").size == math.prod(
                    map(int, shape.split("x"))
                )


def test_peaks_and_bandwidths_are_those_of_a_second_source():
    """JAX's own table, of its TPU kernels; it has less bandwidth for v5p than its maker."""
    from jax.experimental.pallas import tpu

    versions = {"v4": "TPU_V4", "v5e": "TPU_V5E", "v5p": "TPU_V5P", "v6e": "TPU_V6E"}
    for name, version in versions.items():
        kind = tpu.ChipVersion[version]
        cores = kind.num_physical_tensor_cores_per_chip
        told, chip = tpu.get_tpu_info_for_chip(kind, 1), chips.CHIPS[name]
        assert chip.flops == pytest.approx(cores * told.bf16_ops_per_second, rel=0.01)
        near = 0.13 if name == "v5p" else 0.03
        bandwidth = cores * told.mem_bw_bytes_per_second
        assert chip.bandwidth == pytest.approx(bandwidth, rel=near)
        assert chip.memory <= cores * told.hbm_capacity_bytes


def test_kinds_of_the_state_add_up():
    config, shapes = paper()
    parts = counting.count(config, 8, shapes)
    assert parts.state == parts.weights + parts.moments
    # float32, and two moments of it
    assert parts.moments == pytest.approx(2 * parts.weights, rel=1e-3)
    assert parts.update == sum(parts[:4])
    halved = dividing.changed(config, {"sampling.slots": 32})
    assert counting.count(halved, 8, shapes).cache == parts.cache / 2


def test_more_chips_hold_less_each_and_take_less_time():
    """16 to 512 chips over fsdp: state falls as 1/n, and FLOPs do."""
    config, shapes = paper()
    config = dividing.changed(
        config, {"ppo.num_micro_batches": 1, "sampling.problems_per_step": 32}
    )
    found = []
    for devices in (16, 64, 256, 512):
        parts = counting.count(config, devices, shapes)
        mesh = work.mesh_of(config, devices)
        done = work.parts_of(config, shapes, mesh, parts, "replicated")
        found.append((devices * parts.state, devices * done["learn"].flops))
    for state, flops in found[1:]:
        assert state == pytest.approx(found[0][0], rel=0.03)  # norms are whole
        assert flops == found[0][1]


@pytest.mark.parametrize(("algorithm", "remat"), [("ppo", False), ("grpo", True)])
def test_flops_of_learning_by_formula_are_those_that_xla_counts(algorithm, remat):
    """One layer and one chunk of the vocabulary: no loop has a second trip to miss."""
    config = small(
        **{"num_layers": 1, "hidden_size": 128, "intermediate_size": 512, "head_dim": 32},
        **{"num_kv_heads": 4, "vocab_size": 1024, "remat": remat, "max_positions": 256},
    )
    config.algorithm = algorithm
    config.ppo.num_minibatches = 1
    config.prompt.max_prompt_length = config.sampling.max_completion_length = 32
    steps = Steps(config, sharding.make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]), (1,))
    learn = programs.programs(steps)[-2]
    assert learn.name == "learn"
    lowered = learn.jitted.lower(*learn.args)
    shapes = counting.Shapes(config)
    parts, mesh = counting.count(config, 1, shapes), {"data": 1, "fsdp": 1, "tensor": 1}
    flops = work.parts_of(config, shapes, mesh, parts, "replicated")["learn"].flops
    assert flops == pytest.approx(lowered.cost_analysis()["flops"], rel=0.15)


def test_programs_of_an_iteration_and_what_lies_beside_them():
    config = small()
    config.sampling.slots, config.mesh = 8, MeshConfig(1, 8, 1)
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:8])
    steps = Steps(config, mesh, (1,))
    found = {program.name: program for program in programs.programs(steps)}
    assert " ".join(found) == NAMES
    local, parts = compiling.local_bytes, counting.count(config, 8)
    state = local(steps.abstract_state)
    assert state == parts.state
    reference = local(steps.abstract_reference())
    assert reference == parts.reference
    weights, wide, *_ = found["advance"].args
    assert local(weights) == parts.decoding
    scalars = 16  # the step and the rewards' moments
    prepare = local(found["prepare"].beside) + local(found["prepare"].args)
    assert prepare == state + reference - scalars
    assert local(found["advance"].beside) >= state + reference
    assert local(found["learn"].args) >= state + reference and not found["learn"].beside
    # the whole cache, at its full width, and what else a slot has
    assert parts.cache <= local(wide) < 1.5 * parts.cache
    waves, chunks = 2, 3  # 16 rollouts in 8 slots, 10 tokens by 4
    assert found["advance"].runs == waves * chunks
    counted = needs.by_program(config, counting.Shapes(config), dict(mesh.shape), parts)
    assert counted.keys() == found.keys()
    for name in ("init", "empty", "resize"):  # which need nothing else
        program = found[name]
        outputs = program.jitted.eval_shape(*program.args)
        there = local(program.args) + local(program.beside) + local(outputs)
        assert counted[name] == pytest.approx(there, rel=0.02), name
    for name in ("prepare", "read", "fill", "advance", "learn"):  # what is there for sure
        program = found[name]
        there = local(program.args) + local(program.beside)
        assert there < counted[name], name
    for program in found.values():  # each can be traced with what it is given
        assert program.jitted.trace(*program.args).jaxpr is not None


def test_a_batch_in_two_passes_has_two_programs():
    config = small()
    config.ppo.num_minibatches = 2
    mesh = sharding.make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    found = programs.programs(Steps(config, mesh, (1,)))
    assert [program.name for program in found[-3:]] == ["experience", "update", "gather"]
    assert compiling.local_bytes(found[-2].beside) == counting.count(config, 1).reference


def test_the_roofline_takes_the_slowest_bound():
    chip = chips.CHIPS["v5e"]
    part = roofline.predict("learn", work.Work(197e12, 2 * 819e9, 90e9, 1e6), chip)
    assert part[1:] == pytest.approx((1.0, 2.0, 2.0))
    part = roofline.predict("learn", work.Work(197e12, 819e9, 270e9, 0), chip)
    assert (part.seconds, part.bound) == (pytest.approx(3.0), "interconnect")
    other = roofline.Predicted("decode", 1.0, 4.0, 0.0)
    assert roofline.iteration([part, other]) == (pytest.approx(7.0), "decode: memory")


def compiled(name, received=0.0, **fields):
    one = compiling.hlo.Collective("all-gather", "bf16", "fsdp", received, 1, "o_proj")
    blank = compiling.Compiled(name, 0, 0, 0, 0, 0, 0, 1, 0.0, "", (one,))
    return blank._replace(**fields)


def test_what_the_compiler_says_takes_the_place_of_the_count():
    config, shapes = paper()
    v5p = chips.parse("v5p:2x2x2")
    by_count = plan.make_plan(config, v5p, shapes=shapes)
    assert by_count.fits and by_count.at_most == by_count.parts.at_most
    learn = compiled("learn", 18e12, arguments=5, outputs=4, aliases=3, temporaries=2)
    learn = learn._replace(beside=1)
    assert (learn.own, learn.total) == (8, 9)
    found = plan.make_plan(config, v5p, [learn, compiled("advance", runs=4)], shapes)
    assert found.at_most == 9
    (part,) = [part for part in found.predicted if part.name == "learn"]
    assert part.interconnect == pytest.approx(100, rel=0.01)  # at 180 GB/s
    assert found.collectives[0].op == "learn: o_proj"
    refused = learn._replace(refused="RESOURCE_EXHAUSTED: ...")
    assert not plan.make_plan(config, v5p, [refused], shapes).fits


def test_a_copy_that_does_not_fit_is_split():
    """6.7B over 64 chips of 15.75 GiB: 12.6 GiB of weights are there once, in 64 parts."""
    config, shapes = paper()
    near = {"mesh.fsdp": 64, "ppo.num_micro_batches": 4}
    config = dividing.changed(config, near)
    v5e = chips.parse("v5e:8x8")
    found = plan.make_plan(config, v5e, shapes=shapes)
    assert found.layout == "split" and found.fits
    kept = dividing.changed(config, {"sampling.layout": "replicated"})
    whole = plan.make_plan(kept, v5e, shapes=shapes)
    assert whole.layout == "replicated" and not whole.fits
    assert found.parts.decoding == pytest.approx(whole.parts.decoding / 64, rel=0.01)
    assert whole.parts.sampling - found.parts.sampling > 12 * 2**30
    assert {"sampling.layout": "split"} in [knob.flags for knob in whole.knobs]
    large = chips.parse("v5p:2x2x2")  # where it fits it stays whole
    assert plan.make_plan(paper()[0], large, shapes=shapes).layout == "replicated"
    odd = dividing.changed(config, {"model.vocab_size": 32258, "mesh.fsdp": 64})
    assert counting.choose_layout(odd, 64, v5e.chip.memory) == "replicated"


def test_what_does_not_divide_is_told_what_does():
    config, shapes = paper()
    with pytest.raises(chips.PlanError) as error:
        plan.make_plan(config, chips.parse("v5e:8x8"), shapes=shapes)
    said = str(error.value)
    assert said.endswith("; nearest: --ppo.num_micro_batches 4")  # fsdp takes the rest
    near = {"mesh.fsdp": 64, "ppo.num_micro_batches": 4}
    plan.make_plan(dividing.changed(config, near), chips.parse("v5e:8x8"), shapes=shapes)
    wrong = dividing.changed(config, {"mesh.fsdp": 3})
    with pytest.raises(sharding.ShardingError) as error, dividing.told(wrong, 8):
        counting.count(wrong, 8, shapes)
    assert str(error.value).endswith("; nearest: --mesh.data 2 --mesh.fsdp 4")
    assert counting.count(
        dividing.changed(wrong, {"mesh.data": 2, "mesh.fsdp": 4}), 8, shapes
    )


def test_knobs_are_ranked_by_what_they_save_and_say_what_they_leave():
    change = {"ppo.num_micro_batches": 4, "sampling.layout": "replicated"}
    config = dividing.changed(paper()[0], change)
    found = plan.make_plan(config, chips.parse("v5e:8x8"))
    assert not found.fits
    saved = [knob.saved for knob in found.knobs]
    assert saved == sorted(saved, reverse=True) and saved[-1] > 0
    first = found.knobs[0]
    other = dividing.changed(config, first.flags)
    assert counting.count(other, 64).at_most == first.at_most
    assert first.at_most == found.at_most - first.saved
    text = showing.details(found)
    assert "does not fit" in text and dividing.written(first.flags) in text


def test_the_search_finds_what_fits_and_ranks_it_by_seconds():
    config = small(dtype="bfloat16")
    found = search.search(config, chips.parse("v5e:2x2"))
    assert len(found) > 3
    assert [x.seconds for x in found] == sorted(x.seconds for x in found)
    best = dividing.changed(config, found[0].flags)
    made = plan.make_plan(best, chips.parse("v5e:2x2"))
    assert made.fits and made.seconds == found[0].seconds
    assert made.mesh == {
        axis: found[0].flags.get(f"mesh.{axis}", getattr(config.mesh, axis))
        for axis in made.mesh
    }
    huge = dividing.changed(config, {"model.hidden_size": 2**20})
    with pytest.raises(chips.PlanError, match="take more chips"):
        search.search(huge, chips.parse("v5e:1x1"))


def run(capsys, *words):
    code = main(["plan", *words])
    return code, capsys.readouterr()


def test_the_command_by_shapes(capsys):
    code, said = run(
        capsys, PAPER, "--topology", "h100:8", "a100:4", "--json", "--analytic"
    )
    assert code == 3
    fits, does_not = json.loads(said.out)
    assert fits["fits"] and not does_not["fits"] and does_not["knobs"]
    assert fits["counted"]["at_most"] / 2**30 == pytest.approx(57.3, abs=0.1)
    assert "none has met a chip" in fits["label"] and fits["by"] == "count"
    code, said = run(capsys, PAPER, "--topology", "h100:8")
    assert code == 0 and "| h100:8 | 8 | fsdp 8 |" in said.out
    assert "none has met a chip" in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--topology", "v5e:9x9", "--analytic"), "there is no 'v5e:9x9'; there are v4:"),
        (("--topology", "v5e:8x8", "--analytic"), "nearest: --ppo.num_micro_batches 4"),
        (
            ("--topology", "h100:8", "--mesh.fsdp", "3"),
            "needs a multiple of 3.*nearest: --",
        ),
        ((), "--topology"),
    ],
)
def test_bad_input_is_one_line(capsys, words, message):
    code, said = run(capsys, PAPER, *words)
    assert code == 2 and said.err.count("\n") == 1
    assert compiling.re.search(message, said.err), said.err


def test_no_compiler_is_one_line_with_the_extra(capsys, monkeypatch):
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    code, said = run(capsys, PAPER, "--topology", "v5e:8x8", "--ppo.num_micro_batches", "4")
    assert code == 2 and said.err.count("\n") == 1 and "'.[tpu]'" in said.err


def test_a_checkpoint_that_is_absent_leaves_its_shape(capsys):
    words = ("--topology", "h100:8", "--model.checkpoint", "no/such/folder")
    assert run(capsys, PAPER, *words)[0] == 0


def test_arms_that_learn_text_are_for_sft(capsys):
    code, said = run(capsys, f"{PAPER}:sft", "--topology", "h100:8")
    assert code == 2 and "stepcoder sft" in said.err


def test_train_plans_for_the_machine_at_hand(monkeypatch, capsys):
    from stepcoder_jax.commands import plan as command

    config = parse_config("plan", [PAPER])
    with pytest.raises(chips.PlanError, match=r"kind 'cpu'.*v5e"):
        command.of_this_machine(config)

    class Device:
        device_kind = "NVIDIA H100 80GB HBM3"

    monkeypatch.setattr(command.jax, "devices", lambda: [Device()])
    monkeypatch.setattr(command.jax, "device_count", lambda: 8)
    assert command.of_this_machine(config) == 0
    assert "h100, 8 here" in capsys.readouterr().err
    monkeypatch.setattr(command.jax, "device_count", lambda: 4)
    assert command.of_this_machine(config) == 3


@pytest.mark.long
def test_a_tiny_run_is_planned_for_chips_that_are_not_there(tmp_path):
    """Every program of an iteration, on 2 x 2 chips of a TPU v5e."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("needs libtpu, the compiler for TPUs: pip install -e '.[tpu]'")
    (tmp_path / "tiny.py").write_text(TINY)
    command = [*("-m", "stepcoder_jax", "plan", str(tmp_path / "tiny.py"), "--json")]
    done = subprocess.run(
        [sys.executable, *command, "--topology", "v5e:2x2"],
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = json.loads(done.stdout)
    names = [program["name"] for program in found["programs"]]
    assert " ".join(names) == NAMES
    assert found["by"] == "compiler" and found["fits"] and found["mesh"]["fsdp"] == 4
    learn = found["programs"][-2]
    assert learn["aliases"] > 0.9 * found["counted"]["state"]  # the state is donated
    kinds = {(one["kind"], one["axis"]) for one in found["collectives"]}
    assert ("all-gather", "fsdp") in kinds
    assert len(done.stderr.splitlines()) == len(names), done.stderr  # nothing of libtpu's
