"""One ArrayRecord data set out of problem files, and its rows in training order.

Imports data and formats (which read it again: `built_set`), execution for digests, and
feedback for the order. Read apps_plus_builder, build, pipeline.
"""
