"""Properties of crystals."""
