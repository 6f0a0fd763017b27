"""What crosses between test code and the program, and how.

README.md beside this file says what lives here and who may call it.
"""
