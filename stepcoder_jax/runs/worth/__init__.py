"""What an iteration's programs are worth, where other programs or heads have a say in it.

README.md beside this file says what lives here and who may call it.
"""
