"""What a run's numbers say: plain Python and numpy, pictures at the edge.

Imports config, records, what reads rows in data/formats, and what a chain of rounds is made
of (strategies, feedback, similarity, syntax). Read taxonomy (kinds of bugs), estimates
(pass@k, intervals, pairs), outcomes, which adds both up, judged (rows of results, written
and read), and seeds (several runs of an arm). chains says what is counted of a chain of
rounds, refinement adds chains up and pairs two sets of them, budget sets them against
independent samples. logger writes and reads metrics.jsonl, curves, report and summary show
a run, diagnosis says why nothing could be learnt.
"""
