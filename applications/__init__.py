"""Applications on any ASE calculator (installed as dpa2calc.applications)."""

from .adf import AngularDistribution, angular_distribution
from .diffusion import Diffusion, diffusion
from .paths import Paths, read_paths
from .rdf import RadialComparison, RadialDistribution, radial_distribution, radial_distributions
from .trajectory import Frames

__all__ = [
    "AngularDistribution",
    "Diffusion",
    "Frames",
    "Paths",
    "RadialComparison",
    "RadialDistribution",
    "angular_distribution",
    "diffusion",
    "radial_distribution",
    "radial_distributions",
    "read_paths",
]
