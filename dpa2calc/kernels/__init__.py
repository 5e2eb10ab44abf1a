"""Fast operations for the model's formulas."""
