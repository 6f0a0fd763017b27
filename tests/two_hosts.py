"""What one of two processes sees of arrays that both hold: for tests/test_hosts.py."""

import json

import jax
import numpy as np

from stepcoder_jax.config import MeshConfig
from stepcoder_jax.devices import joining, sharding
from stepcoder_jax.pytrees import Feedback


def main() -> None:
    joining.join_hosts()
    index = jax.process_index()
    mesh = sharding.make_mesh(MeshConfig(), jax.devices())
    rows = np.arange(4.0)
    split = sharding.to_devices(rows, sharding.batch_sharding(mesh, 0))
    total = jax.jit(lambda x: x.sum(), out_shardings=sharding.replicated(mesh))(split)
    own = Feedback(
        np.full((2, 3), index + 0.5, np.float32), np.ones(2, bool), np.zeros(2, bool)
    )
    # without explanations and with them
    plain = Feedback(*sharding.from_first(own))
    assert plain.explained is None
    parted = own._replace(explained=np.full(2, index, np.int32))
    agreed = Feedback(*sharding.from_first(parted))
    acted: list[int] = []
    sharding.on_first(lambda: acted.append(index))
    seen = {
        "processes": jax.process_count(),
        "held": split.addressable_shards[0].data.tolist(),
        "gathered": sharding.to_host({"split": split, "total": total, "own": rows}),
        "agreed": [(str(x.dtype), np.asarray(x).tolist()) for x in agreed if x is not None],
        "acted": acted,
    }
    print(json.dumps(seen, default=np.ndarray.tolist))


if __name__ == "__main__":
    main()
