"""A pool whose programs run on a SandboxFusion-compatible service elsewhere.

README.md beside this file says what lives here and who may call it.
"""
