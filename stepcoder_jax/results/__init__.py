"""What a run's numbers say: plain Python and numpy, pictures at the edge.

Imports config and records. Read taxonomy (kinds of bugs), estimates (pass@k, intervals,
pairs), outcomes, which adds both up; logger writes and reads metrics.jsonl, curves, report
and summary show a run, diagnosis says why nothing could be learnt.
"""
