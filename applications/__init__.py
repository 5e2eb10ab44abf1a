"""Applications on any ASE calculator (installed as dpa2calc.applications)."""
