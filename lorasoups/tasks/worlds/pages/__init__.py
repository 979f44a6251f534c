"""The world of pages: manual QA, reading comprehension and prompt formats are asked in it."""

VERSION = 1  # of the generators; raise it when a text changes
