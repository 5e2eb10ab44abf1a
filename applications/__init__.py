"""Applications on any ASE calculator (installed as dpa2calc.applications)."""

from .adf import AngularDistribution, angular_distribution
from .arrhenius import Arrhenius, arrhenius
from .conservation import TurnedForces, energy_conservation
from .conservation_result import EnergyConservation
from .density_map import DensityMap, density_map
from .diffusion import Diffusion, diffusion
from .md import run_md
from .md_config import MDConfig
from .md_result import MDResult
from .off_centre import Cages, find_cages
from .paths import Paths, read_paths
from .perovskite import perovskite, solid_solution
from .phase_result import PhaseTransition
from .phase_transition import phase_transition
from .rdf import RadialComparison, RadialDistribution, radial_distribution, radial_distributions
from .relax import relax
from .relax_result import RelaxResult
from .representation import RepresentationMap, representation_map
from .trajectory import Frames
from .van_hove import VanHove, van_hove

__all__ = [
    "AngularDistribution",
    "Arrhenius",
    "Cages",
    "DensityMap",
    "Diffusion",
    "EnergyConservation",
    "Frames",
    "MDConfig",
    "MDResult",
    "Paths",
    "PhaseTransition",
    "RadialComparison",
    "RadialDistribution",
    "RelaxResult",
    "RepresentationMap",
    "TurnedForces",
    "VanHove",
    "angular_distribution",
    "arrhenius",
    "density_map",
    "diffusion",
    "energy_conservation",
    "find_cages",
    "perovskite",
    "phase_transition",
    "radial_distribution",
    "radial_distributions",
    "read_paths",
    "relax",
    "representation_map",
    "run_md",
    "solid_solution",
    "van_hove",
]
