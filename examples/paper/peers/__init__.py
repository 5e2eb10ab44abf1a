"""Peers of this package, trained in processes of their own."""
