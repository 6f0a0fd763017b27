"""What a run's numbers say: plain Python and numpy.

README.md beside this file says what lives here and who may call it.
"""
