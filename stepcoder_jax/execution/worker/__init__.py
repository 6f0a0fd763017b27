"""What runs in the sandbox's interpreter: the worker, its children, the tracer.

Imports sandbox and crossing, and as few modules as it can: each page makes each fork
dearer. Read worker, children, child, then tracer; programs and checker are the two
processes of a worker, calls is for what crosses to test code, marks what a child leaves,
frames are the talk with the pool. hot_pages and immortal make forks cheap; defaults and
semaphores are what a program finds in place of the machine.
"""
