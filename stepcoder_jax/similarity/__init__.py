"""How alike two programs are, or two explanations: numbers from 0 to 1, or unit vectors.

Imports records and syntax. lexemes takes the tokens of any text, codebleu compares programs
by their tokens, trees and the flow of their data. embedders make vectors of explanations,
and encoder does by a small model. All is linear in the length of the texts, capped by
counts, and the same in every process.
"""
