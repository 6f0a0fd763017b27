"""What is wrong with a problem set, and what it is like.

README.md beside this file says what lives here and who may call it.
"""
