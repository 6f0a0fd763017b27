"""One file for each sub-command but train; a command may import every room.

README.md beside this file says what lives here and who may call it.
"""
