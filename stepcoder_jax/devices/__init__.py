"""The mesh, and the jitted, donated, sharded programs of a run.

Imports learning, sampling, models and the leaves; runs and commands come in by `Steps`.
Read joining (JAX as one process of several), sharding (mesh, rules, the way in and out for
arrays), gathers (what hosts tell each other) and digests, then steps, and sampler for the
programs that completions are made by.
"""
