"""The registry of known data sets."""
