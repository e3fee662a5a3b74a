"""The commands that the user runs: a module for each environment of tox."""
