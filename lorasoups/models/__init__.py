"""Frozen base models: find, load, batch, generate."""
