"""The layers around an untrusted program.

README.md beside this file says what lives here and who may call it.
"""
