"""A profile runs: stages, methods of the table, results file, ablations."""
