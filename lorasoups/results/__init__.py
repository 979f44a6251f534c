"""One format of results files, and the statistics on it; no torch."""
