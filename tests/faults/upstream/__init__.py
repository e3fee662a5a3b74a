"""Faults of the libraries themselves, each with the way around it that this package takes."""
