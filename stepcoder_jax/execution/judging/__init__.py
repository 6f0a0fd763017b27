"""From what a worker saw to a report.

README.md beside this file says what lives here and who may call it.
"""
