"""Who judges: programs run in a sandbox, numbers in words, short answers."""
