"""Applications on any ASE calculator (installed as dpa2calc.applications)."""

from .adf import AngularDistribution, angular_distribution
from .arrhenius import Arrhenius, arrhenius
from .conservation import TurnedForces, energy_conservation
from .conservation_result import EnergyConservation
from .density_map import DensityMap, density_map
from .diffusion import Diffusion, diffusion
from .elastic import ElasticConstants, elastic_constants
from .eos import EquationOfState, equation_of_state
from .md import run_md
from .md_config import MDConfig
from .md_result import MDResult
from .neb import nudged_elastic_band
from .neb_result import NudgedElasticBand
from .off_centre import Cages, find_cages
from .paths import Paths, read_paths
from .perovskite import perovskite, solid_solution
from .phase_result import PhaseTransition
from .phase_transition import phase_transition
from .phonon_convergence import PhononConvergence, phonon_convergence
from .phonon_result import Phonons
from .phonons import phonons
from .quasi_harmonic import QuasiHarmonic, quasi_harmonic
from .rdf import RadialComparison, RadialDistribution, radial_distribution, radial_distributions
from .relax import relax
from .relax_result import RelaxResult
from .representation import RepresentationMap, representation_map
from .surface import SurfaceEnergy, surface_energy
from .trajectory import Frames
from .vacancy import VacancyFormation, vacancy_formation_energy, vacancy_hop
from .van_hove import VanHove, van_hove
from .vibrations import Vibrations, vibrations

__all__ = [
    "AngularDistribution",
    "Arrhenius",
    "Cages",
    "DensityMap",
    "Diffusion",
    "ElasticConstants",
    "EnergyConservation",
    "EquationOfState",
    "Frames",
    "MDConfig",
    "MDResult",
    "NudgedElasticBand",
    "Paths",
    "PhaseTransition",
    "PhononConvergence",
    "Phonons",
    "QuasiHarmonic",
    "RadialComparison",
    "RadialDistribution",
    "RelaxResult",
    "RepresentationMap",
    "SurfaceEnergy",
    "TurnedForces",
    "VacancyFormation",
    "VanHove",
    "Vibrations",
    "angular_distribution",
    "arrhenius",
    "density_map",
    "diffusion",
    "elastic_constants",
    "energy_conservation",
    "equation_of_state",
    "find_cages",
    "nudged_elastic_band",
    "perovskite",
    "phase_transition",
    "phonon_convergence",
    "phonons",
    "quasi_harmonic",
    "radial_distribution",
    "radial_distributions",
    "read_paths",
    "relax",
    "representation_map",
    "run_md",
    "solid_solution",
    "surface_energy",
    "vacancy_formation_energy",
    "vacancy_hop",
    "van_hove",
    "vibrations",
]
