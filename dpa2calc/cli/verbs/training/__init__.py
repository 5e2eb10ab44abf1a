"""Verbs that make and check models."""
