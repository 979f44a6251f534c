"""Tasks on real datasets, from the Hub or a local mirror."""
