"""What is asked, and who judges the answers.

To add a task of a generated world, add an entry to ``TASKS`` in ``worlds/mini/tasks.py`` or
``worlds/pages/tasks.py``; of a dataset, a table to ``real/sets.toml``. To add a judge, add an entry
to ``JUDGES`` in ``judging/judges.py``. Then name the task and its judge in a profile.
"""
