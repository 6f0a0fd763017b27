"""What runs in the sandbox's interpreter: the worker, its children, the tracer.

Imports sandbox and crossing, and as few modules as it can: each page makes each fork
dearer. Read worker, children, child, then tracer; checker runs test code, frames are the
talk with the pool. hot_pages and immortal make forks cheap; defaults and semaphores are
what a program finds in place of the machine.
"""
