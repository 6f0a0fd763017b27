"""The layers around an untrusted program.

Standard library alone, and no other room. Read confinement, which puts all layers on, then
landlock, seccomp with syscalls and tasks, and namespaces; canaries try from inside what is
open, layout says where an interpreter keeps its files.
"""
