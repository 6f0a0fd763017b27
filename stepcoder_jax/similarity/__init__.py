"""How alike two programs are, or two explanations: numbers from 0 to 1, or unit vectors.

README.md beside this file says what lives here and who may call it.
"""
