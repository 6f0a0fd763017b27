"""Compile a PPO update with splash attention for four chips of a TPU v5e, without any.

Prints the names of the kernels in the compiled program.
"""

import re

import jax
from jax.experimental import topologies

from stepcoder_jax.config import MeshConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.pytrees import Experience
from tests import kit

FLAGS, NUMBERS = ("mask", "loss_mask"), ("tokens", "prompt_length", "length")


def main() -> None:
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    config = kit.tiny_config()
    config.model = kit.tiny_model(attention="splash", dtype="bfloat16", num_kv_heads=1)
    mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=2, tensor=2), devices)
    steps = Steps(config, mesh, (kit.EOS,))

    def abstract(name: str) -> jax.ShapeDtypeStruct:
        width = {"tokens": kit.PROMPT + kit.COLUMNS}.get(name, kit.COLUMNS)
        shape = (kit.ROWS,) if "length" in name else (kit.ROWS, width)
        dtype = bool if name in FLAGS else "int32" if name in NUMBERS else "float32"
        return jax.ShapeDtypeStruct(shape, dtype, sharding=steps.batch_sharding)

    names = (name for name in Experience._fields if name != "explained")
    experience = Experience(**{name: abstract(name) for name in names})
    traced = steps.update_program.trace(steps.abstract_state, experience)
    text = traced.lower(lowering_platforms=("tpu",)).compile().as_text()
    print("\n".join(sorted(set(re.findall(r"splash_mha_\w+", text)))))


if __name__ == "__main__":
    main()
