"""Forces for LAMMPS by `fix external`: units, per-atom energies, virial, and errors that stop the run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import units
from ase.calculators.calculator import Calculator
from ase.data import atomic_masses, atomic_numbers

from dpa2calc.ambient import own_modes
from dpa2calc.errors import ConfigError, ElementError

from .order import check_order
from .parts import Parts
from .whole import Share, Whole

NAME = "dpa2calc"  # of the fix; others begin with it
# LAMMPS's unit style -> its unit of energy in eV; both have Å.
ENERGY = {"metal": 1.0, "real": units.kcal / units.mol}
_RUNNING = ("command", "commands_list", "commands_string", "file")


def attach(lmp: Any, calculator: Calculator, types: Sequence[str]) -> None:
    """Let a calculator be the potential of a LAMMPS simulation, from its next run on.

    Energy (thermo, minimisation), energies of atoms (compute pe/atom), forces and virial (pressure, NPT) are
    the calculator's, added to those of a pair style if there is one. Virials of atoms (compute stress/atom)
    are NaN; a minimisation does not renew energies of atoms, `run 0` after it does. An error of the
    calculator stops LAMMPS, and is raised by `lmp.command` or `lmp.file`.

    On several processes each computes its own part of the structure. `comm_modify cutoff`, `neighbor` and
    `neigh_modify` are set for that, and must not be changed afterwards.

    Args:
        lmp: a `lammps.lammps` whose box and atoms exist; units metal or real.
        calculator: any ASE calculator on one process, a `DPA2Calculator` on several.
        types: the element of each LAMMPS type, as after `pair_coeff * *`.

    Raises:
        ConfigError: no box, other units, another number of types, attached already, fixes that must follow
            the model, or a calculator that cannot be divided among processes: the message says what to do.
        ElementError: no such element, or one that the head does not know.
        MissingDependencyError: several processes without mpi4py.

    Example:
        >>> attach(lmp, DPA2Calculator("student-water"), ["O", "H"])
        >>> lmp.command("run 1000")
    """
    _Attached(lmp, calculator, _check_types(lmp, calculator, types))


def _check_types(lmp: Any, calculator: Calculator, types: Sequence[str]) -> tuple[str, ...]:
    if not lmp.extract_setting("box_exist"):
        raise ConfigError("LAMMPS has no simulation box yet; create or read it and its atoms first")
    style = lmp.extract_global("units")
    if style not in ENERGY:
        raise ConfigError(f"units {style}; allowed are {' and '.join(ENERGY)}: write `units metal`")
    names = (types,) if isinstance(types, str) else tuple(types)
    n_types = lmp.extract_setting("ntypes")
    if len(names) != n_types:
        raise ConfigError(
            f"{len(names)} elements ({' '.join(map(str, names))}) for {n_types} LAMMPS types; name one "
            "element for each type, in their order, such as: O H"
        )
    known = getattr(calculator, "elements", None)
    for number, name in enumerate(names, 1):
        if atomic_numbers.get(name, 0) < 1:
            raise ElementError(
                f"LAMMPS type {number} is named {name!r}, which is no element; write O, H, Cu, ..."
            )
        if known is not None and name not in known:
            raise ElementError(
                f"LAMMPS type {number} is {name}, which this head does not know; it knows {' '.join(known)}"
            )
    _check_masses(lmp, names)
    return names


def _check_masses(lmp: Any, names: tuple[str, ...]) -> None:
    """Raise a ConfigError where LAMMPS's masses are those of the same elements in another order."""
    found = lmp.numpy.extract_atom("mass")
    if found is None:  # each atom has its own
        return
    masses, named = found[1 : len(names) + 1], atomic_masses[[atomic_numbers[name] for name in names]]
    if np.allclose(np.sort(masses), np.sort(named), atol=0.1) and np.abs(masses - named).max() > 0.2:
        right = " ".join(names[np.abs(named - mass).argmin()] for mass in masses)
        raise ConfigError(
            f"the elements {' '.join(names)} do not fit LAMMPS's masses "
            f"{' '.join(f'{mass:g}' for mass in masses)}, which are those of {right}; "
            "name them in the order of the types"
        )


def _check_calculator(calculator: Calculator) -> None:
    if "energy" not in calculator.implemented_properties:
        raise ConfigError(f"{calculator!r} predicts no energies and forces; choose a head that does")
    for member in getattr(calculator, "_members", ()):
        fitting = member.head.fitting
        if fitting.numb_aparam or (fitting.numb_fparam and fitting.default_fparam is None):
            raise ConfigError(
                f"head {member.head.name!r} wants frame or atomic parameters, which LAMMPS does not have"
            )


class _Attached:
    """The callback of a `fix external` and what it needs."""

    def __init__(self, lmp: Any, calculator: Calculator, types: tuple[str, ...]) -> None:
        if NAME in lmp.available_ids("fix"):
            raise ConfigError("a calculator is attached already; take it away first: unfix dpa2calc")
        _check_calculator(calculator)
        check_order(lmp)
        self._lmp = lmp
        self._error: BaseException | None = None
        self._evaluate: Callable[[], Share]
        if lmp.extract_setting("world_size") == 1:
            if lmp.extract_global("pair_style") == "none":
                lmp.command("comm_modify cutoff 1.0")  # no ghosts are needed; LAMMPS warns of 0.0
            self._evaluate = Whole(lmp, calculator, types)
        else:
            self._evaluate = Parts(lmp, calculator, types)
        self._per_unit = 1.0 / ENERGY[lmp.extract_global("units")]
        self._unknown = np.empty((0, 6))
        self._define()

    def _define(self) -> None:
        """The fix, and one that stops LAMMPS.

        Python cannot raise through LAMMPS. So a variable is evaluated after each call, for no atom: it
        divides by `dpa2calc_ok`, which is set to 0 after an error. That ends the run or minimisation at once.
        """
        lmp = self._lmp
        if f"{NAME}_stop" in lmp.available_ids("fix"):  # of a model taken away; it must follow the new one
            lmp.command(f"unfix {NAME}_stop")
        lmp.command(f"fix {NAME} all external pf/callback 1 1")
        lmp.command(f"group {NAME}_none empty")
        lmp.command(f"variable {NAME}_ok internal 1.0")
        lmp.command(f"variable {NAME}_zero atom 0.0")
        self._define_stop(lmp.command)
        stop = f"v_{NAME}_stopped 0.0 0.0 energy v_{NAME}_zero"
        lmp.command(f"fix {NAME}_stop {NAME}_none addforce {stop}")
        self._call = lmp.FIX_EXTERNAL_CALLBACK_FUNC(self._callback)  # ctypes keeps no reference to it
        lmp.lib.lammps_set_fix_external_callback(lmp.lmp, NAME.encode(), self._call, self)
        plain = lmp.command
        for name in _RUNNING:
            setattr(lmp, name, self._telling(getattr(lmp, name), plain))

    @staticmethod
    def _define_stop(command: Callable[[str], Any]) -> None:
        # After an error LAMMPS believes that it is still evaluating the variable.
        command(f"variable {NAME}_stopped delete")
        command(f"variable {NAME}_stopped equal 0.0/v_{NAME}_ok")

    def _telling(self, run: Callable[..., Any], command: Callable[[str], Any]) -> Callable[..., Any]:
        """The same method of `lmp`, which raises the error that stopped it instead of LAMMPS's."""

        @functools.wraps(run)
        def told(*arguments: Any) -> Any:
            try:
                result = run(*arguments)
            except Exception:
                if self._error is None:
                    raise
            if self._error is None:
                return result
            error, self._error = self._error, None
            self._lmp.set_internal_variable(f"{NAME}_ok", 1.0)
            self._define_stop(command)
            raise error

        return told

    def _callback(self, _caller: Any, _step: int, n: int, _ids: Any, _x: Any, forces: Any) -> None:
        """Called by LAMMPS at each step; nothing may leave it as an exception."""
        try:
            if self._lmp.extract_global("respa_levels") is not None:
                raise ConfigError("`run_style respa` leaves out the model's forces; take `run_style verlet`")
            with own_modes():
                self._hand_over(self._evaluate(), n, forces)
        except BaseException as error:
            self._error = error
            if self._lmp.extract_setting("world_rank") == 0:
                self._lmp.error(0, f"dpa2calc: {error}")  # a warning in LAMMPS's log
            self._lmp.set_internal_variable(f"{NAME}_ok", 0.0)

    def _hand_over(self, share: Share, n: int, forces: Any) -> None:
        lmp, scale = self._lmp, self._per_unit
        lmp.fix_external_set_energy_global(NAME, share.energy * scale)
        w = 0.5 * (share.virial + share.virial.T) * scale
        lmp.fix_external_set_virial_global(NAME, [w[0, 0], w[1, 1], w[2, 2], w[0, 1], w[0, 2], w[1, 2]])
        if n == 0:
            return
        lmp.numpy.darray(forces, n, 3)[:] = share.forces * scale
        lmp.numpy.fix_external_set_energy_peratom(NAME, share.energies * scale)
        if len(self._unknown) < n:
            self._unknown = np.full((n, 6), np.nan)
        lmp.numpy.fix_external_set_virial_peratom(NAME, self._unknown)
