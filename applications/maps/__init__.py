"""Maps of descriptors."""
