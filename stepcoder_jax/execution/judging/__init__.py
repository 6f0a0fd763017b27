"""From what a worker saw to a report.

Imports worker (the forms of what it answers), settings and records. Read dialogue (the way
through one program), verdicts, grading (whether an output is what was expected), checks.
"""
