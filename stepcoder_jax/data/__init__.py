"""Where problems come from: files in many formats, a generated benchmark, a built set.

README.md beside this file says what lives here and who may call it.
"""
