"""Verbs on model files."""
