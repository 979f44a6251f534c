"""What is asked, and who judges the answers."""
