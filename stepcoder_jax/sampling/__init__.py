"""Completions from prompts, on the device: draws, chunks of tokens, slots.

README.md beside this file says what lives here and who may call it.
"""
