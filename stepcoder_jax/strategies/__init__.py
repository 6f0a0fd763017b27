"""What is done with a policy and a judge at inference, each written as its pseudocode.

Imports feedback, syntax and records. A strategy is a generator: it yields what it asks for
and returns what it found. Read driving, which moves many of them on together, then rounds;
mending has the single steps of which records are made.
"""
