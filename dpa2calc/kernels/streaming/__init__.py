"""Compressed students without a graph, for millions of atoms."""
