"""What the user reads of a run: the commands behind tox, and the table in the terminal."""
