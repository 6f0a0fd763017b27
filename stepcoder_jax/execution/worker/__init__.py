"""What runs in the sandbox's interpreter: the worker, its children, the tracer.

README.md beside this file says what lives here and who may call it.
"""
