"""The mini world: chains of sums told in words, for the composed task *hard math*."""

VERSION = 1  # of the generators; raise it when a text changes
