"""The world of pages: facts in passages and a manual, and words whose letters are counted.

Manual QA, reading comprehension and prompt formats are asked in it.
"""

VERSION = 1  # of the generators; raise it when a text changes
