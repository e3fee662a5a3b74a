"""A module for each environment of tox: what the user types."""
