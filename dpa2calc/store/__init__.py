"""Files and names of models."""
