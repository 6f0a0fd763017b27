"""The trainer's side: programs in, reports out, over many workers.

README.md beside this file says what lives here and who may call it.
"""
