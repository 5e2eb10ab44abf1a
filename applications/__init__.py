"""Applications on any ASE calculator (installed as dpa2calc.applications)."""

from .rdf import RadialComparison, RadialDistribution, radial_distribution, radial_distributions
from .trajectory import Frames

__all__ = [
    "Frames",
    "RadialComparison",
    "RadialDistribution",
    "radial_distribution",
    "radial_distributions",
]
