"""A run's metrics as pictures, alone and beside those of other runs.

README.md beside this file says what lives here and who may call it.
"""
