"""Relaxation."""
