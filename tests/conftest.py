"""Eight simulated CPU devices, and JAX's guards on, before anything imports JAX."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Eight devices, so that meshes can be tested. LLVM does not optimise: that takes longer
# than what the tests run (test_notebook.py, whose commands are a user's, goes without).
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
).strip()
# arrays of different rank must never be broadcast by accident
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# JAX_COMPILATION_CACHE_DIR, where set, makes a second run faster

# Two processes end together when the files that take longest begin first.
LONG = (
    *("train", "sft", "notebook", "grpo", "sharding", "ppo", "one_pass"),
    *("export", "restore", "coverage"),
)


def pytest_configure(config):
    """Files in their order, where pytest-xdist would begin with those of most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """The long files first, each whole."""
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))
