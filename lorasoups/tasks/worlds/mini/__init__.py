"""The mini world: chains of arithmetic told in words, for the composed task *hard math*."""

VERSION = 1  # of the generators; raise it when a text changes
