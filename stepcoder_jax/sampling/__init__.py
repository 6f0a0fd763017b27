"""Completions from prompts, on the device: draws, chunks of tokens, slots.

Imports models, config and pytrees; `devices` jits what is here. Read drawing (one token),
chunks (several tokens of each slot, in one program), then slots, the loop on the host,
which gives the slots of finished rollouts to those that wait.
"""
