"""StepCoder in JAX: a code model learns from running its own programs."""

__version__ = "0.1.0"
