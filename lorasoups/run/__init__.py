"""The command line, the notebook runner, and the doctor."""
