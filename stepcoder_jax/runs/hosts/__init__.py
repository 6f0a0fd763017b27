"""The hosts of one run: they begin together, fail together and end together.

Standard library alone; place says which process of how many this one is.
"""
