"""One ArrayRecord data set out of problem files, and its rows in training order.

README.md beside this file says what lives here and who may call it.
"""
