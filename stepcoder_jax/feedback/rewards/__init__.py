"""What a program earns: rewards, one in a file, that add up to those on its tokens.

README.md beside this file says what lives here and who may call it.
"""
