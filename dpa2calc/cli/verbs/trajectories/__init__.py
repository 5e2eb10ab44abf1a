"""Verbs that make or analyse many frames."""
