"""What a run's numbers say: plain Python and numpy, pictures at the edge.

README.md beside this file says what lives here and who may call it.
"""
