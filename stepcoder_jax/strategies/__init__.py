"""What is done with a policy and a judge at inference, each written as its pseudocode.

Imports feedback and records. A strategy is a generator: it yields what it asks for and
returns what it found. Read driving, which moves many of them on together, then rounds.
"""
