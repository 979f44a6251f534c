"""A soup of one's own LoRAs: learn its weights, compare, check that it loads at its strength."""
