"""Which problems and which rollouts an iteration learns from, beside the curriculum.

README.md beside this file says what lives here and who may call it.
"""
