"""What is asked, and who judges the answers. How to add a task: CONTRIBUTING.md; a judge is an
entry of ``JUDGES`` in ``judging/judges.py``."""
