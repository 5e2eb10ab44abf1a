"""Verbs on one structure: relaxation and properties."""
