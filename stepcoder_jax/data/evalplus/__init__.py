"""HumanEval+ and MBPP+ as EvalPlus releases them: inputs, and no results.

Imports formats, execution (canonical solutions tell the results) and records; `problems`
comes in by evalplus, the reader. Read it, then inputs and oracles, which are EvalPlus's own
rules, and expected.
"""
