import functools
import json
import resource
import shutil
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from stepcoder_jax.config import MeshConfig
from stepcoder_jax.devices.sharding import make_mesh, param_shardings
from stepcoder_jax.learning import updates
from stepcoder_jax.learning.ppo import PPO
from stepcoder_jax.runs.disk import checkpoint
from tests import kit

BEFORE_KL_COEF = ("step", "actor", "critic", "actor_opt", "critic_opt", "reward_scale")


@functools.cache
def sharded_state():
    """A state on 2 x 2 x 2 devices with odd bits in every leaf, and its abstract twin."""
    config = kit.tiny_config()
    config.ppo.critic.name = "adamw8bit"  # codes and scales are leaves as well
    state = updates.init_state(PPO, config, kit.tiny_params())
    keys = iter(jax.random.split(jax.random.key(7), 200))
    state = jax.tree.map(
        lambda x: (
            jax.random.normal(next(keys), x.shape) if x.dtype == jnp.float32 else x + 3
        ),
        state,
    )
    mesh = make_mesh(MeshConfig(2, 2, 2), jax.devices())
    shardings = param_shardings(mesh, state)
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings
    )
    return jax.device_put(state, shardings), abstract


class Curriculum(NamedTuple):
    stage: np.ndarray
    rho: np.ndarray


def saved(step):
    arrays = Curriculum(np.arange(5, dtype=np.int32), np.float32([0.1, 0.2, 0.3]))
    config = {"a": [1, 2.5, None, "x"], "empty": [], "text": {}}
    record = {"cursor": step, "config": config, "reference": "ab" * 32}
    return checkpoint.Saved(sharded_state()[0], arrays, record)


def bits(x):
    return np.asarray(x).view(np.uint8) if np.ndim(x) else np.asarray(x).tobytes()


def test_a_restored_checkpoint_is_the_saved_one_bit_for_bit(tmp_path):
    _, abstract = sharded_state()
    checkpoint.save(tmp_path, 4, saved(4), keep=2)
    got = checkpoint.restore(tmp_path, 4, abstract)
    want = saved(4)
    assert jax.tree.structure(got.state) == jax.tree.structure(want.state)
    arrays = Curriculum(**got.arrays)  # a NamedTuple comes back as a dict
    for a, b in ((got.state, want.state), (arrays, want.arrays)):
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(bits(x), bits(y)), a, b)
    jax.tree.map(check_place, got.state, abstract)
    assert (arrays.stage.dtype, arrays.rho.dtype) == (np.int32, np.float32)
    assert got.record == want.record == checkpoint.restore_record(tmp_path, 4)


def test_the_networks_come_back_without_the_optimizers(tmp_path):
    _, abstract = sharded_state()
    checkpoint.save(tmp_path, 4, saved(4), keep=2)
    others = dict.fromkeys(("actor_opt", "critic_opt", "reward_scale", "step"))
    got = checkpoint.restore_networks(tmp_path, 4, abstract._replace(**others))
    for one, two, place in zip(got, saved(4).state[1:3], abstract[1:3], strict=True):
        assert jax.tree.structure(one) == jax.tree.structure(two)
        jax.tree.map(np.testing.assert_array_equal, one, two)
        jax.tree.map(check_place, one, place)
    norm = abstract.actor["trunk"]["norm"]["scale"]
    wider = jax.ShapeDtypeStruct((64,), norm.dtype, sharding=norm.sharding)
    actor = {"trunk": abstract.actor["trunk"] | {"norm": {"scale": wider}}}
    with pytest.raises(checkpoint.CheckpointError, match=r"norm/scale has shape \(32,\)"):
        checkpoint.restore_networks(tmp_path, 4, abstract._replace(actor=actor))


def test_a_controllers_coefficient_is_kept_and_is_no_part_of_a_state_without_one(tmp_path):
    state, abstract = sharded_state()
    assert "kl_coef" not in checkpoint._as_stored(state)  # as before there were any
    place = abstract.step.sharding
    steered = saved(1)._replace(state=state._replace(kl_coef=jnp.float32(0.3)))
    checkpoint.save(tmp_path, 1, steered, keep=2)
    wanted = jax.ShapeDtypeStruct((), jnp.float32, sharding=place)
    got = checkpoint.restore(tmp_path, 1, abstract._replace(kl_coef=wanted)).state
    assert got.kl_coef == np.float32(0.3)
    with pytest.raises(checkpoint.CheckpointError, match="kl_coef has shape"):
        checkpoint.restore(tmp_path, 1, abstract)


def check_place(array, abstract):
    assert array.dtype == abstract.dtype
    assert array.sharding.is_equivalent_to(abstract.sharding, array.ndim)


def test_only_the_newest_are_kept_and_the_best_stays(tmp_path):
    assert checkpoint.latest_step(tmp_path / "nowhere") is None
    checkpoint.save_best(tmp_path, 1, saved(1))
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, saved(step), keep=2)
    assert checkpoint.steps_in(tmp_path) == [2, 10]
    assert checkpoint.latest_step(tmp_path) == 10
    assert checkpoint.steps_in(tmp_path / "best") == [1]
    checkpoint.save_best(tmp_path, 10, saved(10))
    assert checkpoint.steps_in(tmp_path / "best") == [10]
    checkpoint.save(tmp_path, 10, saved(11), keep=2)  # the same step again
    assert checkpoint.restore_record(tmp_path, 10)["cursor"] == 11


def test_folders_that_cannot_be_resumed_say_why(tmp_path):
    _, abstract = sharded_state()
    with pytest.raises(checkpoint.CheckpointError, match=r"step 3; found steps: none"):
        checkpoint.restore(tmp_path, 3, abstract)
    (tmp_path / "3").mkdir()
    assert checkpoint.latest_step(tmp_path) is None
    with pytest.raises(checkpoint.CheckpointError, match="not a checkpoint folder"):
        checkpoint.restore(tmp_path, 3, abstract)


def test_another_model_is_refused(tmp_path):
    _, abstract = sharded_state()
    checkpoint.save(tmp_path, 1, saved(1), keep=1)
    norm = abstract.actor["trunk"]["norm"]["scale"]
    wider = jax.ShapeDtypeStruct((64,), norm.dtype, sharding=norm.sharding)
    actor = {"trunk": abstract.actor["trunk"] | {"norm": {"scale": wider}}}
    with pytest.raises(checkpoint.CheckpointError, match=r"norm/scale has shape \(32,\)"):
        checkpoint.restore(tmp_path, 1, abstract._replace(actor=actor))


def damage_every_file(folder):
    """(what was done, undo) for each way to break each file of a checkpoint."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        kept = path.read_bytes()
        half = len(kept) // 2
        flipped = kept[:half] + bytes(x ^ 4 for x in kept[half:][:1]) + kept[half + 1 :]
        for how, bad in (("torn", kept[:half]), ("flipped", flipped)) if kept else ():
            path.write_bytes(bad)
            yield f"{path.name} {how}"
            path.write_bytes(kept)
        path.unlink()
        yield f"{path.name} gone"
        path.write_bytes(kept)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path):
    _, abstract = sharded_state()
    for step in (3, 4):
        checkpoint.save(tmp_path, step, saved(step), keep=2)
    for how in damage_every_file(tmp_path / "4"):
        with pytest.raises(checkpoint.DamagedError) as error:
            checkpoint.check(tmp_path, 4)
        assert f"checkpoint {tmp_path / '4'} is damaged: " in str(error.value), how
    checkpoint.check(tmp_path, 4)  # as it was
    (tmp_path / "4" / "state" / "manifest.ocdbt").write_bytes(b"")
    got, complaints = checkpoint.restore_newest(tmp_path, abstract, None)
    assert got is not None and got.record == saved(3).record
    (complaint,) = complaints
    assert "state/manifest.ocdbt is not what was written" in complaint
    with pytest.raises(checkpoint.DamagedError, match=r"another with --run\.step"):
        checkpoint.restore_newest(tmp_path, abstract, 4)
    (tmp_path / "3" / "_CHECKPOINT_METADATA").unlink()
    with pytest.raises(checkpoint.DamagedError, match="no other checkpoint was kept"):
        checkpoint.restore_newest(tmp_path, abstract, None)


def test_a_checkpoint_without_a_seal_opens_if_it_is_of_before_seals(tmp_path):
    _, abstract = sharded_state()
    checkpoint.save(tmp_path, 4, saved(4), keep=2)
    (tmp_path / "4" / "digests.json").unlink()
    with pytest.raises(checkpoint.DamagedError, match=r"digests.json is missing"):
        checkpoint.check(tmp_path, 4)
    part = {"record": {"json": json.dumps(saved(5).record)}}  # as version 0.1 wrote it
    former = NamedTuple("TrainState", [(name, object) for name in BEFORE_KL_COEF])
    state = former(*saved(5).state[: len(BEFORE_KL_COEF)])
    state = {"state": state, "arrays": saved(5).arrays}
    ocp.save_checkpointables(tmp_path / "5", state | part)
    got, complaints = checkpoint.restore_newest(tmp_path, abstract, None)
    assert got is not None and got.record == saved(5).record and not complaints
    for file in (tmp_path / "5" / "state").rglob("d/*"):
        file.write_bytes(b"")
    shutil.rmtree(tmp_path / "4")
    checkpoint.save(tmp_path, 4, saved(4), keep=2)
    got, (complaint,) = checkpoint.restore_newest(tmp_path, abstract, None)
    assert got is not None and got.record == saved(4).record
    assert str(tmp_path / "5") in complaint and "cannot be read" in complaint


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_never_written(tmp_path, bad):
    checkpoint.save(tmp_path, 3, saved(3), keep=1)
    state = sharded_state()[0]
    scale = state.actor["trunk"]["norm"]["scale"]
    scale = jax.device_put(scale.at[1].set(bad), scale.sharding)
    actor = state.actor | {"trunk": state.actor["trunk"] | {"norm": {"scale": scale}}}
    wrong = saved(4)._replace(state=state._replace(actor=actor))
    for write in (partial(checkpoint.save, keep=1), checkpoint.save_best):
        with pytest.raises(checkpoint.CheckpointError, match="actor/trunk/norm/scale"):
            write(tmp_path, 4, wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]
    checkpoint.check(tmp_path, 3)


def test_a_full_disk_is_one_line_and_leaves_the_last_one(tmp_path, caplog):
    checkpoint.save(tmp_path, 3, saved(3), keep=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # of each file
    try:
        with pytest.raises(checkpoint.CheckpointError) as error:
            checkpoint.save(tmp_path, 4, saved(4), keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = str(error.value)
    assert "no room for a checkpoint" in message and "\n" not in message
    assert not caplog.records  # nor is there a traceback of Orbax's threads
    assert [path.name for path in tmp_path.iterdir()] == ["3"]
    checkpoint.check(tmp_path, 3)
    checkpoint.save(tmp_path, 4, saved(4), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["4"]


def test_a_process_that_ends_between_two_names_loses_nothing(tmp_path):
    _, abstract = sharded_state()
    checkpoint.save(tmp_path, 4, saved(4), keep=1)
    (tmp_path / "4").rename(tmp_path / "4.former")
    (tmp_path / "4.part").mkdir()
    got, _ = checkpoint.restore_newest(tmp_path, abstract, None)
    assert got is not None and got.record == saved(4).record
    checkpoint.save(tmp_path, 4, saved(5), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["4"]


def test_another_future_is_set_aside(tmp_path):
    for step in (2, 4, 10):
        (tmp_path / str(step)).mkdir()
    (tmp_path / "10.aside").mkdir()
    moved = checkpoint.set_aside(tmp_path, 2)
    assert [path.name for path in moved] == ["4.aside", "10.aside1"]
    assert checkpoint.numbered(tmp_path) == [2]
