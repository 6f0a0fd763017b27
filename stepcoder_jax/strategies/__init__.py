"""What is done with a policy and a judge at inference, each written as its pseudocode.

README.md beside this file says what lives here and who may call it.
"""
