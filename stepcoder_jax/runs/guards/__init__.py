"""What stops a run before it is spoilt, and what warns of it.

Imports runs/disk, devices and what stands below. Read not_finite (an update that left
itself out: where it is not finite, and what is kept of it), then watch (signs that a run
goes wrong, from its metrics).
"""
