"""Applications on any ASE calculator (installed as dpa2calc.applications)."""

from .adf import AngularDistribution, angular_distribution
from .rdf import RadialComparison, RadialDistribution, radial_distribution, radial_distributions
from .trajectory import Frames

__all__ = [
    "AngularDistribution",
    "Frames",
    "RadialComparison",
    "RadialDistribution",
    "angular_distribution",
    "radial_distribution",
    "radial_distributions",
]
