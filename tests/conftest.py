"""Eight simulated CPU devices, and JAX's guards on, before anything imports JAX."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
# arrays of different rank must never be broadcast by accident
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# JAX_COMPILATION_CACHE_DIR, where set, makes a second run faster
