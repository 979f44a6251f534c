"""Results files become tables, sentences and figures; nothing is computed here."""
