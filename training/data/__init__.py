"""Data sets with labels."""
