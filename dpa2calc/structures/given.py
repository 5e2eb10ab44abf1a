"""Structures as a caller has them: `ase.Atoms`, or pymatgen's `Structure` and `Molecule`.

Whatever takes a structure passes it through `as_atoms`, and what hands one back through `in_form`. Nothing
else in the package asks which of them it was. pymatgen is never imported unless the caller has done so.
"""

from __future__ import annotations

import sys
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from dpa2calc.errors import StructureError, optional_library

Form: TypeAlias = Literal["Atoms", "Structure", "Molecule"]
_OF_MOLECULES = {"charge": "charge", "spin_multiplicity": "spin"}  # attributes that pymatgen reads -> info


def form_of(given: object) -> Form:
    """Which kind of structure it is; "Atoms" for anything that is none of pymatgen's."""
    library: Any = sys.modules.get("pymatgen.core.structure")  # not there: nobody can hold one
    if library is None or not isinstance(given, library.SiteCollection):
        return "Atoms"
    return "Structure" if isinstance(given, library.IStructure) else "Molecule"


def as_atoms(given: Any) -> Any:
    """`ase.Atoms` of a pymatgen structure, with its `calc`, site properties and fixed sites; else the same.

    Charge and spin multiplicity of a molecule, other than 0 and 1, go to `info`, as "charge" and "spin"; so
    does the charge that a crystal was given. Deuterium and tritium are hydrogen of their own mass.

    What is no structure at all is handed on, for those who check it to say so.

    Raises:
        StructureError: a site that several elements share, or an element that ASE does not know.
    """
    if form_of(given) == "Atoms":
        return given
    from pymatgen.io.ase import AseAtomsAdaptor

    try:
        atoms: Atoms = AseAtomsAdaptor.get_atoms(given, msonable=False)
    except (ValueError, KeyError) as error:
        raise StructureError(
            f"the {form_of(given)} {given.formula} cannot be evaluated ({error}); each site needs one "
            "element: make an ordered structure of it first (OrderDisorderedStructureTransformation)"
        ) from error
    spins = [getattr(site.specie, "spin", None) or 0.0 for site in given]
    if any(spins) and not atoms.has("initial_magmoms"):  # of species; those of sites are there
        atoms.set_initial_magnetic_moments(spins)
    for atom, site in zip(atoms, given):
        if atom.number == 1 and site.specie.atomic_mass > 1.5:  # deuterium and tritium: hydrogen to ASE
            atom.mass = float(site.specie.atomic_mass)
    if form_of(given) == "Structure" and given._charge:  # what `charge` sums up of oxidation states is none
        atoms.info["charge"] = given._charge
    if form_of(given) == "Molecule" and (given.charge, given.spin_multiplicity) != (0, 1):
        atoms.info.update(charge=round(given.charge), spin=given.spin_multiplicity)
    return atoms


def require_calculator(atoms: Atoms, what: str) -> None:
    """Raise a StructureError where atoms have no calculator, or one of a file that only holds results.

    Args:
        what: how the message begins.
    """
    if atoms.calc is not None and not isinstance(atoms.calc, SinglePointCalculator):
        return
    has = "have no calculator" if atoms.calc is None else "hold the results of a file, and no calculator"
    raise StructureError(f"{what}: the atoms {has}; set atoms.calc = DPA2Calculator(...) first")


def as_energy(given: npt.ArrayLike) -> float:
    """The energy (eV) that a calculator gives; some give an array of one number.

    Raises:
        StructureError: it is not one number.
    """
    if np.size(given) != 1:
        shape = np.shape(given)
        raise StructureError(f"the calculator gives an energy of shape {shape}; it must be one number")
    return float(np.ravel(given)[0])


def in_form(atoms: Atoms, form: Form) -> Any:
    """Atoms in the form in which they were given, with their calculator.

    Raises:
        MissingDependencyError: pymatgen is not installed (a result that was saved elsewhere).
    """
    if form == "Atoms":
        return atoms
    text = f"a pymatgen {form} needs pymatgen, which is not installed: pip install 'dpa2calc[pymatgen]'"
    adaptor = optional_library("pymatgen.io.ase", text).AseAtomsAdaptor
    make = adaptor.get_structure if form == "Structure" else adaptor.get_molecule
    copy: Any = atoms.copy()
    for name, key in _OF_MOLECULES.items() if form == "Molecule" else ():
        if key in atoms.info:
            setattr(copy, name, atoms.info[key])
    charge = copy.info.pop("charge", None) if form == "Structure" else None
    made: Any = make(copy)
    if charge:
        made.set_charge(charge)
    made.calc = atoms.calc
    return made
