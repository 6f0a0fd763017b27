"""What crosses between test code and the program, and how.

Imports nothing of the package: both processes of a test load it. Read kinds (one table:
carried, mirrored or refused), values (the words on the wire), messages, errors, channel,
then server and proxy, which are its two ends; codec_clock is what the crossing itself
costs.
"""
