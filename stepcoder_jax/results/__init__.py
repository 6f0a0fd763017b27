"""What a run's numbers say: plain Python and numpy, pictures at the edge.

Imports config, records and what reads rows in data/formats. Read taxonomy (kinds of bugs),
estimates (pass@k, intervals, pairs), outcomes, which adds both up, judged (rows of results,
written and read), and seeds (several runs of an arm); logger writes and reads
metrics.jsonl, curves, report and summary show a run, diagnosis says why nothing could be
learnt.
"""
