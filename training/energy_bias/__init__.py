"""Energies of the elements, fitted."""
