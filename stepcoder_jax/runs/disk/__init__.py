"""What a run reads at its start, and what it leaves on disk.

README.md beside this file says what lives here and who may call it.
"""
