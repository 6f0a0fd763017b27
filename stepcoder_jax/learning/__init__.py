"""What a batch teaches: pure steps from arrays to arrays, without file, clock or process.

README.md beside this file says what lives here and who may call it.
"""
