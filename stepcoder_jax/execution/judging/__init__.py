"""From what a worker saw to a report.

Imports worker (the forms of what it answers), settings and records. Read dialogue (the way
through one program), verdicts, grading (whether an output is what was expected), returned
(what a call gave, read without a table of its keys), checks.
"""
