"""Judges: programs in a sandbox, numbers in words, short answers."""
