"""A pool whose programs run on a SandboxFusion-compatible service elsewhere.

Imports pool, judging, worker and sandbox. Read pool, then driver, which is uploaded with
what it imports, and service, one request.
"""
