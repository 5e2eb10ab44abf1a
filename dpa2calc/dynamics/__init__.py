"""Molecular dynamics on any ASE calculator."""
