"""Applications on any ASE calculator (installed as dpa2calc.applications)."""

from dpa2calc.applications.crystals.elastic import ElasticConstants, elastic_constants
from dpa2calc.applications.crystals.eos import EquationOfState, equation_of_state
from dpa2calc.applications.crystals.perovskite import perovskite, solid_solution
from dpa2calc.applications.crystals.phonon_convergence import PhononConvergence, phonon_convergence
from dpa2calc.applications.crystals.phonon_result import Phonons
from dpa2calc.applications.crystals.phonons import phonons
from dpa2calc.applications.crystals.quasi_harmonic import QuasiHarmonic, quasi_harmonic
from dpa2calc.applications.defects.neb import nudged_elastic_band
from dpa2calc.applications.defects.neb_result import NudgedElasticBand
from dpa2calc.applications.defects.surface import SurfaceEnergy, surface_energy
from dpa2calc.applications.defects.vacancy import VacancyFormation, vacancy_formation_energy, vacancy_hop
from dpa2calc.applications.maps.representation import RepresentationMap, representation_map
from dpa2calc.applications.md.conservation import TurnedForces, energy_conservation
from dpa2calc.applications.md.conservation_result import EnergyConservation
from dpa2calc.applications.md.md import run_md
from dpa2calc.applications.molecules.vibrations import Vibrations, vibrations
from dpa2calc.applications.relaxation.relax import relax
from dpa2calc.applications.relaxation.relax_result import RelaxResult
from dpa2calc.applications.screening.screen import Screening, read_screening, screen
from dpa2calc.applications.shared.trajectory import Frames
from dpa2calc.applications.structure.adf import AngularDistribution, angular_distribution
from dpa2calc.applications.structure.rdf import (
    RadialComparison,
    RadialDistribution,
    radial_distribution,
    radial_distributions,
)
from dpa2calc.applications.transitions.off_centre import Cages, find_cages
from dpa2calc.applications.transitions.result import PhaseTransition
from dpa2calc.applications.transitions.transition import phase_transition
from dpa2calc.applications.transport.arrhenius import Arrhenius, arrhenius
from dpa2calc.applications.transport.density_map import DensityMap, density_map
from dpa2calc.applications.transport.diffusion import Diffusion, diffusion
from dpa2calc.applications.transport.unwrapped import Paths, read_paths
from dpa2calc.applications.transport.van_hove import VanHove, van_hove
from dpa2calc.dynamics.config import MDConfig
from dpa2calc.dynamics.result import MDResult

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
    "Screening",
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
    "read_screening",
    "relax",
    "representation_map",
    "run_md",
    "screen",
    "solid_solution",
    "surface_energy",
    "vacancy_formation_energy",
    "vacancy_hop",
    "van_hove",
    "vibrations",
]
