"""Checks of data sets before training."""
