"""Records of self-debugging: how `stepcoder refine` makes them, and how SFT learns them.

README.md beside this file says what lives here and who may call it.
"""
