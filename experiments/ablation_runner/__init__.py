"""The runner of ablation.py and relatives.py: arms x seeds, one file per run, a table.

Read study (what is run) and command (its flags); then, in the order of a run, resuming
(what is left to run), digest (may it stand beside those that are there?), steps (its
commands), jobs (several at a time), measure (a process that asks the model at the end),
record (a run folder as one JSON). What reads records is table and picture.

Other runners stand on the same study, resuming, digest, jobs and record:
`resuming.Course` is what each says of its own runs.
"""
