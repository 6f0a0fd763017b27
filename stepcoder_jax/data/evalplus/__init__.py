"""HumanEval+ and MBPP+ as EvalPlus releases them: inputs, and no results.

README.md beside this file says what lives here and who may call it.
"""
