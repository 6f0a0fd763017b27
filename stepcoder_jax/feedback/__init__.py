"""Tasks before sampling and feedback after it: plain Python and numpy, never JAX.

README.md beside this file says what lives here and who may call it.
"""
