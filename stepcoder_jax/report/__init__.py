"""One HTML file that shows runs: curves over runs, the curriculum, every kept rollout.

README.md beside this file says what lives here and who may call it.
"""
