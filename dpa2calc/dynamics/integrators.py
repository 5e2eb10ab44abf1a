"""ASE's integrators with the right number of degrees of freedom, ramps, and a state that can be saved.

ASE has no exact restart: the thermostat's and barostat's variables live in attributes that its
trajectory does not hold. `Integrator.get_state` collects them, `set_state` puts them back, and a
run continued this way repeats every bit (tests/applications/test_md_restart.py).

ASE's Nose-Hoover and MTK classes count 3N degrees of freedom. With the centre of mass at rest only
3N-3 carry kinetic energy, which would make the temperature N/(N-1) times too high; and its full-cell
barostat counts 9 cell momenta where only the 6 of a symmetric matrix move, which would make the cell
1.5 times too hot. Both counts are corrected here. Slabs and wires change their periodic directions only.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.constraints import FixAtoms, FixCartesian, FixCom

from dpa2calc.errors import ConfigError, StructureError

from .config import MDConfig
from .strain import check_partly_periodic, strain_basis

# attributes that, with positions, momenta, cell and the random generator, make up an integrator's state
_CHAIN = ("_thermostat._eta", "_thermostat._p_eta", "_thermostat._Q", "_thermostat._kT")
_BAROSTAT = ("_barostat._xi", "_barostat._p_xi", "_barostat._R", "_barostat._W", "_barostat._kT", "_kT")
_WRONG = {  # constraints of ASE that are right for relaxations only
    "FixInternals": "projects momenta as if they were forces, and takes rotations away",
    "FixSubsetCom": "moves the other atoms too",
    "FixedMode": "counts its degrees of freedom wrongly",
}
_RIGHT_ANGLE = 1e-3  # degrees
_STATE: dict[str, tuple[str, ...]] = {
    "VelocityVerlet": (),
    "Langevin": (),
    "Bussi": ("transferred_energy",),
    "NoseHooverChainNVT": _CHAIN,
    "IsotropicMTKNPT": (*_CHAIN, *_BAROSTAT, "_cell0", "_volume0", "_eps", "_p_eps"),
    "MTKNPT": (*_CHAIN, *_BAROSTAT, "_h", "_p_g"),
    "MaskedMTKNPT": (*_CHAIN, *_BAROSTAT, "_h", "_h0_basis", "_p_c"),
    "PeriodicMTKNPT": (*_CHAIN, *_BAROSTAT, "_h", "_p_c"),
}


def degrees_of_freedom(atoms: Atoms, fix_com: bool) -> int:
    """Number of kinetic degrees of freedom: 3N less the constraints' and, if at rest, the centre of mass."""
    held, removed = np.zeros((len(atoms), 3), dtype=bool), 0  # coordinates may be held twice
    for item in atoms.constraints:
        if isinstance(item, (FixAtoms, FixCartesian)):
            held[item.index] |= getattr(item, "mask", True)
            continue
        if reason := _WRONG.get(type(item).__name__):
            raise StructureError(
                f"dynamics cannot run with {type(item).__name__}, which in ASE {reason}: temperatures would "
                "be wrong; take FixBondLengths, FixLinearTriatomic or FixCom, or atoms.set_constraint()"
            )
        try:
            removed += int(item.get_removed_dof(atoms))
        except NotImplementedError as error:
            raise StructureError(
                f"dynamics cannot run with {type(item).__name__}, which does not say how many degrees of "
                "freedom it takes; take it off with atoms.set_constraint()"
            ) from error
    has_fix_com = any(isinstance(item, FixCom) for item in atoms.constraints)
    return 3 * len(atoms) - int(held.sum()) - removed - (3 if fix_com and not has_fix_com else 0)


def wants_fixed_com(atoms: Atoms, config: MDConfig) -> bool:
    """Whether this run holds the centre of mass at rest (`fix_com=None` decides by constraints)."""
    if config.fix_com is None:
        return len(atoms) > 1 and not atoms.constraints
    if config.fix_com and len(atoms) == 1:
        raise ConfigError("fix_com=True leaves a single atom no motion; give fix_com=False")
    if config.fix_com and (names := _holding(atoms)):
        raise ConfigError(
            f"fix_com=True, but {', '.join(names)} holds atoms where they are, so that the centre of mass "
            "moves when the others do; give fix_com=False"
        )
    return config.fix_com


def _holding(atoms: Atoms) -> list[str]:
    """Constraints that do not let all atoms move together, but for that on the centre of mass."""
    found, copy = [], atoms.copy()
    for item in copy.constraints:
        moved = copy.positions + 1.0
        item.adjust_positions(copy, moved)
        if not isinstance(item, FixCom) and not np.allclose(moved, copy.positions + 1.0):
            found.append(type(item).__name__)
    return found


def initialise_velocities(atoms: Atoms, config: MDConfig, rng: np.random.Generator, fix_com: bool) -> None:
    """Give the atoms Maxwell-Boltzmann momenta (scaled to exactly the first target temperature).

    With `velocities="keep"`, or "auto" and momenta present, the momenta stay as they are, except that
    `fix_com` takes the centre-of-mass motion away, and constraints what they hold.
    """
    given = atoms.has("momenta") and bool(np.any(atoms.get_momenta()))
    draw = config.velocities == "new" or (config.velocities == "auto" and not given)
    if config.velocities == "keep" and not given:
        raise ConfigError("velocities='keep', but all momenta are zero; set momenta or use velocities='new'")
    masses = atoms.get_masses()[:, None]  # (n_atoms, 1)
    temperature = config.target_temperature(0)
    if draw:
        momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * temperature)
        atoms.set_momenta(momenta)
    elif atoms.constraints:  # what they hold has no part in the kinetic energy, from the first row on
        atoms.set_momenta(atoms.get_momenta())
    if fix_com:
        momenta = atoms.get_momenta()
        atoms.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())
    n_dof = degrees_of_freedom(atoms, fix_com)
    if n_dof < 1:
        raise StructureError(f"the constraints leave {n_dof} degrees of freedom; free at least one atom")
    if draw:
        now = 2 * atoms.get_kinetic_energy() / (n_dof * units.kB)
        atoms.set_momenta(atoms.get_momenta() * np.sqrt(temperature / now))


class Integrator:
    """One ASE dynamics object, its target temperature and pressure, and its savable state."""

    def __init__(
        self, atoms: Atoms, config: MDConfig, rng: np.random.Generator, first_cell: np.ndarray
    ) -> None:
        """Attach to `atoms`, which are moved in place and need momenta and a calculator.

        Args:
            first_cell: (3, 3) of the run's first structure, which decides what strains the barostat counts.
        """
        self.config, self._first_cell = config, first_cell
        self.fix_com = wants_fixed_com(atoms, config)
        self.n_dof = degrees_of_freedom(atoms, self.fix_com)
        self.rng = rng
        self._targets = (config.target_temperature(0), config.target_pressure(0))
        self.dynamics = self._make(atoms)
        self._set_temperature(self._targets[0])

    def step(self, number: int) -> None:
        """Do step `number` (the first is 1) with the targets that belong to it."""
        targets = (self.config.target_temperature(number), self.config.target_pressure(number))
        if targets[0] != self._targets[0]:
            self._set_temperature(targets[0])
        if targets[1] != self._targets[1] and self.config.ensemble == "npt":
            self.dynamics._pressure_au = targets[1]
        self._targets = targets
        self.dynamics.step()

    def conserved_energy(self, total_energy: float) -> float:
        """The quantity (eV) that the equations of motion conserve, or NaN where there is none."""
        name = type(self.dynamics).__name__
        if self.config.ramped or name == "Langevin":
            return float("nan")
        if name == "VelocityVerlet":
            return total_energy
        if name == "Bussi":
            return total_energy - float(self.dynamics.transferred_energy)
        try:
            return float(self.dynamics.get_conserved_energy())
        except PropertyNotImplementedError:  # a calculator without free_energy
            return float("nan")

    def get_state(self) -> dict[str, np.ndarray]:
        """Copies of the thermostat's and barostat's variables."""
        return {path: np.array(attrgetter(path)(self.dynamics)) for path in self._paths()}

    def set_state(self, state: dict[str, np.ndarray], step: int) -> None:
        """Put back what `get_state` gave after step `step`; positions, momenta and cell are already set."""
        missing = [path for path in self._paths() if path not in state]
        if missing:
            raise ConfigError(f"the restart file lacks {', '.join(missing)}; it is for another integrator")
        for path in self._paths():
            value = state[path]
            if value.shape != np.shape(attrgetter(path)(self.dynamics)):
                raise ConfigError(f"the restart file holds {path} of shape {value.shape}; it is damaged")
            _set(self.dynamics, path, float(value) if value.ndim == 0 else value.copy())
        self._targets = (self.config.target_temperature(step), self.config.target_pressure(step))
        if self.config.ensemble == "npt":
            self.dynamics._pressure_au = self._targets[1]
        if hasattr(self.dynamics, "set_temperature") or hasattr(self.dynamics, "target_kinetic_energy"):
            self._set_temperature(self._targets[0])

    def _paths(self) -> tuple[str, ...]:
        return _STATE[type(self.dynamics).__name__]

    def _make(self, atoms: Atoms) -> Any:
        config = self.config
        step = config.timestep_fs * units.fs
        temperature = self._targets[0]
        relaxation = config.thermostat_time_fs * units.fs
        if config.ensemble == "nve":
            from ase.md.verlet import VelocityVerlet

            return VelocityVerlet(atoms, step)
        if config.ensemble == "nvt" and config.thermostat in ("langevin", "bussi"):
            if self.fix_com and not any(isinstance(item, FixCom) for item in atoms.constraints):
                atoms.set_constraint([*atoms.constraints, FixCom()])
            if config.thermostat == "langevin":
                from ase.md.langevin import Langevin

                return Langevin(
                    atoms, step, temperature_K=temperature, friction=1 / relaxation, fixcm=False, rng=self.rng
                )
            from ase.md.bussi import Bussi

            return Bussi(atoms, step, temperature, relaxation, rng=self.rng)
        if atoms.constraints:
            raise ConfigError(
                f"{len(atoms.constraints)} constraint(s) on the atoms, but Nose-Hoover chains and NPT do not "
                "support constraints; use thermostat='langevin' or 'bussi' at constant volume"
            )
        if config.ensemble == "nvt":
            from ase.md.nose_hoover_chain import NoseHooverChainNVT

            return NoseHooverChainNVT(atoms, step, temperature, relaxation, tchain=config.chain_length)
        return self._make_npt(atoms, step, temperature, relaxation)

    def _make_npt(self, atoms: Atoms, step: float, temperature: float, relaxation: float) -> Any:
        from ase.md import nose_hoover_chain

        config = self.config
        check_partly_periodic(atoms, "NPT", max(np.ravel(config.pressure_gpa), key=abs))
        name = {"volume": "IsotropicMTKNPT", "axes": "MaskedMTKNPT", "cell": "MTKNPT"}[config.cell_motion]
        if not atoms.pbc.all():
            name = "MaskedMTKNPT"
        if not hasattr(nose_hoover_chain, name):
            raise ConfigError(
                f"cell_motion={config.cell_motion!r} with pbc {atoms.pbc.tolist()} needs ASE 3.29; run "
                "`pip install -U ase`"
            )
        extra: dict[str, object] = {"mask": (True, True, True)} if config.cell_motion == "axes" else {}
        make = getattr(nose_hoover_chain, name)
        oblique = np.abs(atoms.cell.angles() - 90.0).max() > _RIGHT_ANGLE
        if not atoms.pbc.all() or (config.cell_motion == "axes" and oblique):
            from .partly_periodic import PeriodicMTKNPT

            # of the first cell: that of a restart has, in its last bits, other axes in the same plane
            first = Atoms(cell=self._first_cell, pbc=atoms.pbc)
            make, extra = PeriodicMTKNPT, {"basis": strain_basis(first, config.cell_motion)}
        return make(
            atoms,
            step,
            temperature,
            self._targets[1],
            tdamp=relaxation,
            pdamp=config.barostat_time_fs * units.fs,
            tchain=config.chain_length,
            pchain=config.chain_length,
            **extra,
        )

    def _set_temperature(self, temperature: float) -> None:
        """Set the target; masses of extended variables follow, their velocities stay."""
        dynamics, energy = self.dynamics, units.kB * temperature
        if hasattr(dynamics, "set_temperature"):  # Langevin
            dynamics.set_temperature(temperature_K=temperature)
        elif hasattr(dynamics, "target_kinetic_energy"):  # Bussi
            dynamics.ndof, dynamics.temp = self.n_dof, energy
            dynamics.target_kinetic_energy = 0.5 * energy * self.n_dof
        elif hasattr(dynamics, "_thermostat"):
            self._set_chain(dynamics._thermostat, energy)
            if hasattr(dynamics, "_barostat"):
                self._set_barostat(energy)

    def _set_chain(self, chain: Any, energy: float) -> None:
        chain._num_atoms_global = self.n_dof / 3
        masses = np.full(len(chain._Q), energy * chain._tdamp**2)
        masses[0] *= self.n_dof
        chain._p_eta *= masses / chain._Q
        chain._Q, chain._kT = masses, energy

    def _set_barostat(self, energy: float) -> None:
        dynamics, barostat = self.dynamics, self.dynamics._barostat
        ratio = energy / barostat._kT
        dynamics._num_atoms_global = self.n_dof / 3
        kind = type(dynamics).__name__
        if kind == "MTKNPT":
            barostat._cell_dof = 6  # symmetric cell momenta: the rotations of ASE's 9 never move
        barostat._W *= ratio
        barostat._R = barostat._R * ratio
        barostat._p_xi = barostat._p_xi * ratio
        momentum = {"IsotropicMTKNPT": "_p_eps", "MTKNPT": "_p_g"}.get(kind, "_p_c")
        setattr(dynamics, momentum, getattr(dynamics, momentum) * ratio)
        barostat._kT = dynamics._kT = energy


def _set(owner: object, path: str, value: float | np.ndarray) -> None:
    parent, _, name = path.rpartition(".")
    setattr(attrgetter(parent)(owner) if parent else owner, name, value)
