"""Rows of problem files that tests of several rooms use."""

# of APPS+: a function that prints the one line that it reads
ECHO = {
    "prompt": "p",
    "canonical_solution": "def f(): print(input())",
    "inputs": ["a"],
    "outputs": ["a"],
    "starter_code": "def f():",
    "difficulty": "interview",
}
