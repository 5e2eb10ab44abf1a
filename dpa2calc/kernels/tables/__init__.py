"""Embedding nets as tables of quintic polynomials."""
