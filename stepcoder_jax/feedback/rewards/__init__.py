"""What a program earns: rewards, one in a file, that add up to those on its tokens.

Imports config, pytrees, records, own_code, similarity, syntax, and the masks of feedback.
`terms` says what a reward is given and what it returns; `table` has the names of those in
this folder, and `own` loads those of a user's file. Begin with `stepcoder`, which is eq. 3;
`batch` adds the terms up and makes the feedback of a batch. README.md shows how to add one.
"""
