"""The ASE calculator.

atoms.calc = DPA2Calculator(head="H2O-PBE0TS")
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.data import chemical_symbols
from ase.outputs import Properties, all_outputs

from dpa2calc.ambient import own_modes, own_threads_only
from dpa2calc.description import calculator_part, describe, settings
from dpa2calc.engine.batches import evaluate_many
from dpa2calc.engine.committee import MemberLike, ModelLike, each_spec, make_members, own_property
from dpa2calc.engine.consumed import changes, snapshot
from dpa2calc.engine.dense import PER_ATOM, Results, add_dispersion, compute, has_stress, member_graphs
from dpa2calc.engine.dispersion import Dispersion, parse_dispersion
from dpa2calc.engine.doubt import TellsDoubt
from dpa2calc.engine.hessian import hessian_rows
from dpa2calc.engine.recorded import recorded_of
from dpa2calc.engine.streaming import Stream, streamed, streams_of
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.typed import typed
from dpa2calc.heads import check_known
from dpa2calc.progress import progress_bar
from dpa2calc.structures.given import as_atoms
from dpa2calc.structures.graph import Graph
from dpa2calc.structures.graph_builder import GraphBuilder, graph_from_atoms
from dpa2calc.structures.lattice import THINNEST
from dpa2calc.validation import (
    DistanceCheck,
    RangeCheck,
    UnreadCheck,
    check_device,
    check_dtype,
    check_finite,
    check_structure,
)


class DPA2Calculator(Calculator, TellsDoubt):
    """Energies, forces and stresses of a DPA-2, DPA-1 or DeepPot-SE model.

    Args:
        model: "default" (inside the package), a published name (`dpa2calc models`), the path of our own
            or a deepmd-kit checkpoint, or a `Potential`.
        head: which level of theory, by name, alias or unique ending; may be left out if there is one.
        device: "cpu", "cuda", "cuda:1"; None takes a CUDA device if there is one. "mps" has never
            been tried: networks run there in float32, positions and sums stay on the CPU in float64.
        dtype: precision of the networks, "float32" or "float64"; positions, distances and sums are
            always float64.
        skin: Å; neighbours are searched in cutoff + skin and kept until atoms have moved that far. 0
            searches every time. Results do not depend on it.
        committee: further models, or (model, head) pairs where model None is the one above. Results are
            then means, and `energy_std` (eV) and `forces_std` (eV/Å, (n_atoms, 3)) are their spread.
        dispersion: adds D3(BJ): "d3bj" for the functional of the head, "d3bj:pbe" for that one, or a
            `Dispersion`. Energies and stresses of atoms are then not available, as D3 has no such parts.
        allow_unseen_elements: evaluate elements that the head never saw in training, instead of an error.
        compress: look the radial embedding up in tables: many times faster for DPA-1 without attention and
            DeepPot-SE, a little for DPA-2; forces change by less than 1e-7 eV/Å. None does what the file
            says (students are compressed). Needs Numba (CPU) or Triton (CUDA), which compile at first use.
        default_dtype: `dtype`, as other programs call it.

    Results: energy, free_energy, energies, forces; `energy_std`, `energies_std` (eV) where the head knows its
    uncertainty, `forces_std` when asked for; stress where a direction is periodic and the cell has a volume
    (0.1 Å thick across the periodic directions); stresses of atoms when asked for (DPA-2: docs/concepts.md).
    Any combination of periodic directions means just that, and a cell shorter than the cutoff uses all
    images. This differs from deepmd-kit, which takes one periodic direction for all three.

    Raises:
        HeadError, CheckpointError, DownloadError, ConfigError: when made.
        StructureError, ElementError: when a structure cannot be evaluated.

    Example:
        >>> atoms.calc = DPA2Calculator("DPA-2.4-7M", "H2O-PD", dtype="float64")
        >>> atoms.get_potential_energy()
    """

    name = "dpa2calc"
    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]
    ignored_changes = {"initial_charges", "initial_magmoms"}

    @own_modes()
    def __init__(
        self,
        model: ModelLike = "default",
        head: str | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "float32",
        skin: float = 1.0,
        committee: Iterable[MemberLike] | None = None,
        dispersion: Dispersion | str | bool | None = None,
        allow_unseen_elements: bool = False,
        compress: bool | None = None,
        default_dtype: str | torch.dtype | None = None,
    ) -> None:
        self.allow_unseen_elements = typed(bool, allow_unseen_elements, "allow_unseen_elements")
        self.skin = typed(float, skin, "skin")
        compress = typed(bool | None, compress, "compress")
        network_dtype = check_dtype(dtype if default_dtype is None else default_dtype)
        chosen_device = check_device(device, network_dtype)
        self._members = make_members(
            model, head, committee, dtype=network_dtype, device=chosen_device, use_tables=compress
        )
        self.dispersion = parse_dispersion(dispersion, functional=self._members[0].head.functional)
        self._renew()
        self._check_distances, self._check_unread = DistanceCheck(), UnreadCheck()
        self._check_range = RangeCheck(self._members[0].config.type_map, self.head, self._rigidity)
        super().__init__()
        if any(member.head.label for member in self._members):
            self.implemented_properties = [own_property(self._members, self.dispersion)]
        elif len(self._members) > 1 or self._rigidity is not None:
            kinds = ("energy", "forces") if len(self._members) > 1 else ("energy", "energies", "forces")
            self.implemented_properties = [*self.implemented_properties, *(f"{kind}_std" for kind in kinds)]
        if self.dispersion is not None:
            self.implemented_properties = [p for p in self.implemented_properties if p not in PER_ATOM]
        self.parameters = settings(self._members, self.dispersion, device=chosen_device, skin=self.skin)

    def __repr__(self) -> str:
        return f"DPA2Calculator({', '.join(f'{k}={v!r}' for k, v in list(self.parameters.items())[1:])})"

    # -- what is loaded ---------------------------------------------------------------------------

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of all heads of the model."""
        return tuple(head.name for head in self._members[0].config.heads)

    @property
    def head(self) -> str:
        """Full name of the head in use."""
        return self._members[0].head.name

    @property
    def elements(self) -> tuple[str, ...]:
        """Elements that can be evaluated: those the head saw in training, else the type map."""
        config, head = self._members[0].config, self._members[0].head
        if self.allow_unseen_elements or not head.elements:
            return config.type_map
        return tuple(symbol for symbol in config.type_map if symbol in head.elements)

    def describe(self) -> str:
        """A page of text: the model, its heads and what is known of their training, and these settings."""
        settings = ", ".join(f"{key} = {value}" for key, value in list(self.parameters.items())[2:])
        return f"{describe(self._members[0].potential, self._members[0].label)}\nin use      {settings}"

    @own_modes()
    def identity(self) -> dict[str, object]:
        """What decides the numbers: hashes of the weights, heads, precision, dispersion; not device or skin.

        Work on disk is tied to it (see `dpa2calc.files.identity`).
        """
        return calculator_part(self._members, self.dispersion, unseen=self.allow_unseen_elements)

    # -- ASE's protocol ---------------------------------------------------------------------------

    @own_modes()
    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results`; everything but `stresses` is always computed, because one pass gives it all."""
        atoms = self._check(self.atoms if atoms is None else atoms)
        if {"stress", "stresses"} & set(properties) and not has_stress(atoms):
            raise PropertyNotImplementedError(
                f"no stress: the structure has pbc {atoms.pbc.tolist()} and the cell "
                f"{atoms.cell.array.tolist()}; a stress needs a periodic direction and a cell with a volume, "
                f"at least {THINNEST} Å thick where it is not periodic (atoms.center(vacuum=..., axis=...))"
            )
        per_atom = "stresses" in properties
        forces_std = "forces_std" in properties and len(self._members) == 1
        with own_threads_only(len(atoms)):
            streams = () if per_atom or forces_std else self._streams
            results = streamed(streams, atoms, self._check_distances)
            if results is None:
                graphs = self._graphs(atoms, positions=per_atom)
                (results,) = compute(self._members, graphs, [atoms], stresses=per_atom, forces_std=forces_std)
        add_dispersion(results, atoms, self.dispersion)
        check_finite(results)
        self._check_range(atoms, results)
        self.atoms = snapshot(atoms, self._members)
        self.results = results

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed among the things that the model consumes, and nothing else.

        These are positions, numbers, cell and pbc, and info['fparam'], arrays['aparam'] where a head
        takes them. `tol` is ignored: any difference counts.
        """
        return list(all_changes) if self.atoms is None else changes(self.atoms, atoms, self._members)

    def export_properties(self) -> Properties:
        """The results that ASE knows by name."""
        return Properties({key: value for key, value in self.results.items() if key in all_outputs})

    # -- many structures, descriptors -------------------------------------------------------------

    @own_modes()
    def evaluate(
        self,
        structures: Iterable[object],
        *,
        batch_atoms: int = 1024,
        stresses: bool = False,
        forces_std: bool = False,
        progress: bool = False,
    ) -> list[Results]:
        """Results of many structures of any size and composition, in their order.

        Structures are computed together in batches of at most `batch_atoms` atoms; nothing of the
        calculator's state is used or changed. `stress` is absent where it is not defined.

        Args:
            structures: any number of `ase.Atoms`, or of pymatgen's structures; they are not changed.
            batch_atoms: larger is faster on a GPU and takes more memory.
            stresses: also per-atom stresses.
            forces_std: also standard deviations of forces, where the head knows its uncertainty.
            progress: show a bar on stderr.

        Raises:
            StructureError, ElementError: the message begins with the structure's number.
        """
        if isinstance(as_atoms(structures), Atoms):
            raise StructureError("evaluate takes a list of structures; write calc.evaluate([atoms])")
        stresses = typed(bool, stresses, "stresses")
        forces_std = typed(bool, forces_std, "forces_std") and len(self._members) == 1
        if typed(int, batch_atoms, "batch_atoms") < 1:
            raise ConfigError(f"batch_atoms = {batch_atoms}; it must be at least 1")
        listed = [as_atoms(structure) for structure in structures]
        with progress_bar(total=len(listed), unit="structure", shown=progress) as bar:
            return evaluate_many(
                self._members,
                listed,
                check=self._check,
                inspect=self._check_distances,
                look=self._check_range,
                batch_atoms=batch_atoms,
                stresses=stresses,
                forces_std=forces_std,
                dispersion=self.dispersion,
                done=bar.update,
            )

    @own_modes()
    def get_descriptors(self, atoms: object) -> np.ndarray:
        """Representation of every atom before the head, (n_atoms, d)."""
        self._check(structure := as_atoms(atoms))
        member = self._members[0]
        graph = graph_from_atoms(structure, member.spec, positions=False, inspect=self._check_distances)
        found = member.potential.descriptors(graph.to(member.graph_device)).detach().cpu().double().numpy()
        check_finite({"descriptors": found})
        return found

    @own_modes()
    def get_hessian(
        self, atoms: object, *, indices: Sequence[int] | np.ndarray | None = None, progress: bool = False
    ) -> np.ndarray:
        """Second derivatives of the energy by positions, (3n, 3n) in eV/Å², atom after atom, x y z of each.

        Exact, from the nets in float64 whatever `dtype` is, of a compressed model from the nets behind its
        tables; of a committee the mean. Only D3 enters by differences of its forces. The cell is held: of a
        periodic structure this is the Hessian at Γ. Constraints are not looked at.

        Args:
            atoms: not changed; nothing of the calculator's state is used or changed.
            indices: the rows of these atoms only, (3m, 3n), which takes less time.
            progress: show a bar on stderr.

        Raises:
            StructureError, ElementError: as of energies. ConfigError: wrong indices; a head without energies.
        """
        structure, progress = self._check(as_atoms(atoms)), typed(bool, progress, "progress")
        return hessian_rows(
            self._members, structure, indices, dispersion=self.dispersion, inspect=self._check_distances,
            progress=progress,
        )  # fmt: skip

    def set(self, **settings: object) -> dict[str, object]:
        """Refuse what ASE would write into `parameters` without effect (ConfigError)."""
        if settings:
            raise ConfigError(f"{', '.join(settings)} cannot be set afterwards; make another DPA2Calculator")
        return {}

    @own_modes()
    def forget(self) -> None:
        """Drop results and neighbour lists, so that no bit of what follows depends on what was before.

        A list that is reused keeps the order of the atoms that it was made with, and sums differ in their
        last bits. Molecular dynamics calls this where it can be restarted.
        """
        self.reset()
        self._renew()

    # -- copies -----------------------------------------------------------------------------------

    @own_modes()
    def __copy__(self) -> DPA2Calculator:
        """A calculator of its own state that shares the weights."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new._renew()
        for name in ("_check_distances", "_check_unread", "_check_range"):
            setattr(new, name, copy.copy(getattr(self, name)))
        new.parameters, new.results = dict(self.parameters), dict(self.results)
        return new

    def __deepcopy__(self, memo: dict[int, object]) -> DPA2Calculator:
        new = copy.copy(self)
        new.atoms, new.results = copy.deepcopy((self.atoms, self.results), memo)
        return new

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_builders", "_streams")}

    @own_modes()
    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._renew()

    # -- inside -----------------------------------------------------------------------------------

    def _renew(self) -> None:
        """New neighbour lists and engines; members that want the same graph share a builder."""
        members, device, skin = self._members, self._members[0].graph_device, self.skin
        self._builders = each_spec(members, lambda spec: GraphBuilder(spec, skin=skin, device=device))
        self._streams: Sequence[Stream] = streams_of(members, skin=skin) or recorded_of(members, skin=skin)

    def _graphs(self, atoms: Atoms, *, positions: bool) -> list[Graph]:
        builders, check = {made.spec: made for made in self._builders}, self._check_distances
        return member_graphs(
            self._members, atoms, lambda spec: builders[spec](atoms, positions=positions, inspect=check)
        )

    def _check(self, atoms: Atoms | None) -> Atoms:
        checked = self._check_unread(check_structure(atoms))
        if not self.allow_unseen_elements:
            elements = {chemical_symbols[number] for number in np.unique(checked.numbers)}
            for member in self._members:
                check_known(elements, member.head, member.config.heads)
        return checked
