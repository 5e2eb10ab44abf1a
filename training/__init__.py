"""Training of DPA-2 models from Python (installed as dpa2calc.training)."""
