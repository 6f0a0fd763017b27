"""The trainer's side: programs in, reports out, over many workers.

Imports judging, worker, sandbox, settings and records. Read pool, supervisor (one worker
process), streams with async_streams; cache, metrics and affinity serve the pool.
"""
