"""D3(BJ) dispersion on top of a model, by the optional package dftd3 (simple-dftd3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from ase.units import Bohr, Hartree

from dpa2calc.ambient import own_modes
from dpa2calc.errors import ConfigError, ElementError, StructureError, optional_library
from dpa2calc.files.typed import check_fields
from dpa2calc.structures.lattice import cell_volume
from dpa2calc.structures.search import Box, FloatArray, check_geometry, make_box

if TYPE_CHECKING:
    from ase import Atoms
    from dftd3.interface import DispersionModel, RationalDampingParam

# D3 has reference coefficients up to plutonium; dftd3 1.7 crashes far beyond.
_HEAVIEST = 94
_CROWD = 10.0  # Å; more atoms and images within it than matter has would take dftd3 hours
# Words in a functional's name that say: its labels have dispersion already.
_WITH_DISPERSION = re.compile(r"(?i)[-+_ (/](d|d2|d3\w*|d4|mbd\w*|r?vv10|nl|v)($|[-+_ )/(])|ts\b|vdw|grimme")
_EXAMPLES = "pbe, pbe0, revpbe, rpbe, pbesol, scan, r2scan, tpss, blyp, b3lyp, hse06, wb97x"


@dataclass(frozen=True, kw_only=True)
class Dispersion:
    """Settings of D3 with Becke-Johnson damping.

    Attributes:
        functional: the density functional that the model imitates ("pbe", "b3lyp", "scan").
        s8, a1, a2: damping parameters instead of a functional (a2 in Bohr, as published).
        s6: scale of the r^-6 term, used with s8, a1, a2.
        three_body: add the Axilrod-Teller-Muto term. Costs about a hundred times more.
        cutoff: pair cutoff in Å. The default is the reference's 60 Bohr.
        smooth_width: Å below the cutoff over which pairs fade out, so that the stress is the
            derivative of the energy. Changes the energy of water by 1e-6 eV per atom. What is
            left are jumps of less than 1e-6 eV where a pair crosses the cutoff of D3's
            coordination number (40 Bohr or `cutoff`), part of the method as published.
    """

    functional: str | None = None
    s6: float = 1.0
    s8: float | None = None
    a1: float | None = None
    a2: float | None = None
    three_body: bool = False
    cutoff: float = 60 * Bohr
    smooth_width: float = 2 * Bohr

    def __post_init__(self) -> None:
        check_fields(self, "dispersion")
        parameters = (self.s8, self.a1, self.a2)
        if parameters.count(None) != (0 if self.functional is None else 3):
            raise ConfigError(
                f"functional = {self.functional!r} with s8, a1, a2 = {parameters}; "
                "give either a functional or all of s8, a1 and a2"
            )
        if not 0 <= self.smooth_width < self.cutoff < np.inf:
            raise ConfigError(
                f"cutoff = {self.cutoff!r} Å with smooth_width = {self.smooth_width!r} Å; "
                "needed is 0 <= smooth_width < cutoff"
            )


@dataclass(frozen=True)
class DispersionResults:
    """Energy (eV), forces (n_atoms, 3) in eV/Å, strain derivative dE/d(strain) (3, 3) in eV.

    `stress` is (6,) in eV/Å^3 (xx, yy, zz, yz, xz, xy), None if the cell has no volume.
    """

    energy: float
    forces: FloatArray
    strain_derivative: FloatArray
    stress: FloatArray | None


def parse_dispersion(value: object, *, functional: str = "") -> Dispersion | None:
    """The settings that the calculator's `dispersion` argument means.

    Args:
        value: None or False (off); True or "d3bj" (D3(BJ) for the head's functional);
            "d3bj:pbe" (for that functional); or a `Dispersion`.
        functional: what the head was trained on.

    Raises:
        ConfigError: anything else ("False" in quotes is a string, not False), an unknown
            functional, or one whose labels have dispersion already.
    """
    if isinstance(value, np.bool_):
        value = bool(value)
    if value is None or value is False:
        return None
    if isinstance(value, Dispersion):
        return value
    text = "d3bj" if value is True else value
    method, _, chosen = text.lower().partition(":") if isinstance(text, str) else ("", "", "")
    if method != "d3bj":
        raise ConfigError(
            f"dispersion = {value!r} of type {type(value).__name__}; allowed are None, False, True, "
            '"d3bj", "d3bj:<functional>" or dpa2calc.engine.dispersion.Dispersion(...)'
        )
    if chosen:
        return Dispersion(functional=chosen)
    if not functional:
        raise ConfigError(
            f"dispersion = {value!r}, but the functional of this head is not known; "
            f'name it, as in dispersion="d3bj:pbe" (known are {_EXAMPLES}, ...)'
        )
    if _WITH_DISPERSION.search(functional):
        raise ConfigError(
            f"dispersion = {value!r}, but the labels of this head ({functional}) have dispersion already; "
            'leave it out, or, if you know better, name a functional as in dispersion="d3bj:pbe"'
        )
    return Dispersion(functional=functional)


@own_modes()
def dispersion_results(atoms: Atoms, settings: Dispersion | str) -> DispersionResults:
    """D3(BJ) energy, forces and stress in ASE units, for any pbc.

    Args:
        atoms: not changed.
        settings: a `Dispersion`, or just the name of a functional.

    Raises:
        MissingDependencyError: the package dftd3 is not installed.
        ConfigError: no D3(BJ) parameters for the functional.
        ElementError: an element beyond plutonium, or no element (X).
        StructureError: as `neighbor_pairs`, or atoms on top of each other.

    Example:
        >>> dispersion_results(molecule("H2O"), "pbe").energy
        -0.0097...
    """
    text = "dispersion needs the package dftd3, which is not installed; run: pip install "
    text += '"dpa2calc[dispersion]"  (or leave dispersion out)'
    interface = optional_library("dftd3.interface", text)
    options = Dispersion(functional=settings) if isinstance(settings, str) else settings
    damping = _damping(interface, options)
    numbers = atoms.numbers
    bad = (numbers < 1) | (numbers > _HEAVIEST)
    if bad.any():
        symbols = sorted({atoms.symbols[i] for i in np.flatnonzero(bad)})
        raise ElementError(f"D3 has no parameters for {', '.join(symbols)}; it covers H (1) to Pu (94)")
    # dftd3 1.7 wraps atoms along cell vectors across the periodic directions too, which may be zero and
    # tears a slab apart; the box encloses all atoms there.
    box = make_box(check_geometry(atoms.positions, atoms.cell.array, atoms.pbc), _CROWD)
    try:
        found = _model(interface, numbers, box, options).get_dispersion(damping, grad=True)
    except RuntimeError as error:
        raise StructureError(f"dftd3 refuses this structure: {error}") from error
    derivative = np.asarray(found["virial"]) * Hartree
    derivative = 0.5 * (derivative + derivative.T)
    volume = cell_volume(atoms)
    voigt = derivative[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return DispersionResults(
        energy=float(found["energy"]) * Hartree,
        forces=-np.asarray(found["gradient"]) * (Hartree / Bohr),
        strain_derivative=derivative,
        stress=None if volume is None else voigt / volume,
    )


def _model(interface: ModuleType, numbers: np.ndarray, box: Box, options: Dispersion) -> DispersionModel:
    lattice = (box.vectors / Bohr, box.pbc) if box.pbc.any() else ()
    model: DispersionModel = interface.DispersionModel(numbers, box.positions / Bohr, *lattice)
    other_cutoff = min(40.0, options.cutoff / Bohr)  # 40 Bohr is the reference's choice
    width = options.smooth_width / Bohr
    model.set_realspace_cutoff(
        disp2=options.cutoff / Bohr, disp3=other_cutoff, cn=other_cutoff, width2=width, width3=width
    )
    return model


def _damping(interface: ModuleType, options: Dispersion) -> RationalDampingParam:
    three_body = 1.0 if options.three_body else 0.0
    if options.functional is None:
        return interface.RationalDampingParam(
            s6=options.s6, s8=options.s8, s9=three_body, a1=options.a1, a2=options.a2
        )
    name = options.functional.strip().lower().replace("ω", "w").replace("omega", "w")
    try:
        return interface.RationalDampingParam(method=name, atm=options.three_body)
    except RuntimeError as error:
        raise ConfigError(
            f"there are no D3(BJ) parameters for the functional {options.functional!r}; known are "
            f"{_EXAMPLES} and others, or give Dispersion(s8=..., a1=..., a2=...)"
        ) from error
