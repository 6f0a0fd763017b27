"""Readers: rows of a file to problems, one file for each format.

Imports records, and execution for digests. Read rows (files and their bad rows) and source,
then any format; own is the one that we write, built_set the one that `stepcoder data build`
writes; samples are a model's programs for such problems.
"""
