"""What a run says while it goes: the table of its metrics, and who else is told.

README.md beside this file says what lives here and who may call it.
"""
