"""What a run says while it goes: the table of its metrics, and who else is told.

Imports config and records. Read metrics first: every name that metrics.jsonl can have, with
its unit and meaning; METRICS.md is that table, written. trackers hands the same rows to
TensorBoard or to Weights & Biases. The file metrics.jsonl itself is results/logger.py.
"""
