"""The embedded benchmark: problems on lists of numbers, made from a seed.

Imports records alone. Read lexicon (words and their meaning), parts (a sentence and its
code), then benchmark, the way in.
"""
