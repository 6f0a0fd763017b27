"""The hosts of one run: they begin together, fail together and end together.

Imports the standard library, errors, and the sandbox's way to die with a parent; JAX has
no part in it. Read watching first: the parent of each trainer, why there is one, and what
it does. meeting is what the one of process 0 decides for all, channel the trainer's side.
parts is where a host is and for how long, words what of its standard error is for people,
wire the messages, place who is who, comparing what hosts have in common, walltime when an
allocation ends. Who stops where, in the loop, is runs/disk/interrupt.py.
"""
