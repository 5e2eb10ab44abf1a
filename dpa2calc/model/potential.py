"""A descriptor, its heads, and for those of energies forces and virial from one backward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dpa2calc.ambient import differentiable, gradient, own_modes
from dpa2calc.errors import ConfigError
from dpa2calc.kernels import Mode, Reference, make_backend
from dpa2calc.kernels.tables.table import CompressionReport
from dpa2calc.model.bridging import Bridging
from dpa2calc.model.config import ModelConfig
from dpa2calc.model.descriptors import build_descriptor
from dpa2calc.model.ensemble import Ensemble, ensemble, forces_of, to_neighbors, virial_of
from dpa2calc.model.fitting import EnergyHead
from dpa2calc.model.heads import build_head
from dpa2calc.model.layers import Operator
from dpa2calc.model.neighborhood import Neighborhood, type_pair_mask
from dpa2calc.model.rigidity import Rigidity
from dpa2calc.structures.graph import Graph


@dataclass(frozen=True)
class Output:
    """What a potential says about a graph; all float64, eV and Å.

    energy (n_structures,); atomic_energies (n_atoms,); forces (n_atoms, 3); virial (n_structures, 3, 3)
    = sum_i F_i (x) r_i, so stress = -(W + W^T) / 2V; atomic_virial (n_atoms, 3, 3) or None.

    Standard deviations, of a head whose rigidity is known: energy_std (n_structures,), atomic_std (n_atoms,),
    and where they were asked for forces_std (n_atoms, 3) and the members that it comes from; else None.
    """

    energy: Tensor
    atomic_energies: Tensor
    forces: Tensor
    virial: Tensor
    atomic_virial: Tensor | None = None
    energy_std: Tensor | None = None
    atomic_std: Tensor | None = None
    forces_std: Tensor | None = None
    members: Ensemble | None = None


class Potential(nn.Module):
    """One descriptor and its heads, most of them of energies: a fitting net and a bias of each element."""

    excluded_pairs: Tensor | None

    @own_modes(grad=False)
    def __init__(self, config: ModelConfig, *, dtype: torch.dtype = torch.float64):
        super().__init__()
        self.config = config
        self.descriptor = build_descriptor(config.descriptor, config.type_map)
        mixed = config.descriptor.mixed_types
        self.heads = nn.ModuleList(
            build_head(head, config.n_types, self.descriptor.width, mixed_types=mixed)
            for head in config.heads
        )
        self.bridging = Bridging(config.bridging, config.n_types) if config.bridging else None
        excluded = type_pair_mask(config.pair_exclude_types, config.n_types)
        self.register_buffer("excluded_pairs", excluded, persistent=False)
        # Set by `dpa2calc.model.compression`: the tables in use, and the maker's wish to have some.
        self.compression: CompressionReport | None = None
        self.prefers_compression = False
        self.backend = Reference()
        self.to(dtype)

    @own_modes(grad=False)
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Potential:
        # `to`, `double` and `cuda` go through this; in inference mode weights would lose their derivatives.
        super()._apply(fn, recurse)
        return self.use(self.mode)

    @own_modes(grad=False)
    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args: bool, **options: bool) -> Any:
        """As in PyTorch; products of the old weights are forgotten."""
        outcome = super().load_state_dict(state_dict, *args, **options)
        self.use(self.mode)
        return outcome

    # --- how it is evaluated ----------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """The backend in use, see `use`."""
        return self.backend.mode

    def use(self, mode: Mode) -> Potential:
        """Choose how costly operations are evaluated; the numbers are the same up to rounding.

        "reference": the plain formulas, on any device, differentiable any number of times; the default.
        "training": faster on a CPU, differentiable twice, as a loss on forces needs.
        "inference": faster still, differentiable once with respect to positions. Weights are constants
        until another mode is chosen: they ask for no gradient, and products of them are kept. Call it
        again after weights were written in place; `to` and `load_state_dict` see to it themselves.
        "hessian": as "training"; second derivatives by positions cost less, other ones are wrong.

        Where an operation has no faster form, the plain formula is used: see `plain_operations()`.

        Raises:
            ConfigError: no such mode.
        """
        self.backend.release()
        self.backend = make_backend(mode, self.parameters())
        for module in self.modules():
            if isinstance(module, Operator):
                module.backend = self.backend
        return self

    @contextmanager
    def using(self, mode: Mode) -> Iterator[Potential]:
        """`use(mode)` inside a `with`; the mode from before is back afterwards."""
        before = self.mode
        try:
            yield self.use(mode)
        finally:
            self.use(before)

    def plain_operations(self) -> dict[str, str]:
        """Operations that the mode in use leaves to the plain formulas, with the reason."""
        asked = (pair for module in self.modules() if isinstance(module, Operator) for pair in module.asked())
        reasons = ((operation, self.backend.why_not(operation, subject)) for operation, subject in asked)
        return {operation: reason for operation, reason in reasons if reason is not None}

    # --- what it says -----------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the networks."""
        return next(self.parameters()).dtype

    @property
    def precision(self) -> str:
        """Precision of the networks by its name, "float32" or "float64"."""
        return {torch.float32: "float32", torch.float64: "float64"}[self.dtype]

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.parameters()).device

    def head_index(self, name: str) -> int:
        """Position of the head called exactly `name`."""
        return [head.name for head in self.config.heads].index(name)

    def neighborhood(self, graph: Graph, vectors: Tensor) -> Neighborhood:
        """The graph with differentiable `vectors` (n, k, 3) in the model's dtype."""
        hood = Neighborhood(
            graph=graph,
            vectors=vectors,
            distances=torch.linalg.vector_norm(vectors, dim=-1),
            types_j=graph.types[graph.neighbors],
            mask=graph.mask,
            nearest=self.config.neighbor_rule == "nearest",
        )
        return hood if self.excluded_pairs is None else hood.without(self.excluded_pairs)

    @own_modes(grad=False)
    def descriptors(self, graph: Graph) -> Tensor:
        """Atomic representation (n_atoms, width)."""
        return self._represented(graph)[0]

    def _represented(self, graph: Graph) -> tuple[Tensor, Graph]:
        """The representation, without derivatives for positions, and the graph beside the networks."""
        graph = graph.usable()
        vectors = graph.vectors.to(self.dtype).to(self.device)
        near = self._beside_networks(graph, vectors)
        return self.descriptor(self.neighborhood(near, vectors)), near

    @staticmethod
    def _beside_networks(graph: Graph, vectors: Tensor) -> Graph:
        """The graph on the device of `vectors`; one without float64 gets no float64 tensors."""
        if graph.types.device == vectors.device:
            return graph
        fparam, aparam = (None if x is None else x.to(vectors.dtype) for x in (graph.fparam, graph.aparam))
        near = dataclasses.replace(graph, vectors=vectors, positions=None, fparam=fparam, aparam=aparam)
        return near.to(vectors.device)

    @own_modes(grad=False)
    def atomic_values(self, graph: Graph, head: int) -> Tensor:
        """What a head with a label says of each atom, (n_atoms,) float64, in the head's unit."""
        made, near = self._represented(graph)
        values: Tensor = self.heads[head](made, near.types, near.structure, near.fparam, near.aparam)
        return values.to(graph.vectors)

    @own_modes(grad=False)
    def atomic_energies(self, graph: Graph, vectors: Tensor, head: int = 0) -> Tensor:
        """Energy of each atom (n_atoms,), eV, float64; ConfigError if the head predicts something else."""
        return self._atomic(graph, vectors, head, features=False)[0][0]

    @own_modes(grad=False)
    def features(self, graph: Graph, *heads: int) -> list[tuple[Tensor, Tensor]]:
        """By head: energies (n_atoms,), and what they are linear in, the last hidden layer (n_atoms, m)."""
        vectors = graph.usable().vectors.to(self.dtype).to(self.device)
        return self._atomic(graph.usable(), vectors, *heads, features=True)  # type: ignore[return-value]

    def _atomic(
        self, graph: Graph, vectors: Tensor, *heads: int, features: bool
    ) -> list[tuple[Tensor, Tensor | None]]:
        chosen = [self._energy_head(head) for head in heads]
        near = self._beside_networks(graph, vectors)
        hood = self.neighborhood(near, vectors)
        made = self.descriptor(hood)
        return [self._of_head(head, graph, near, hood, made, features) for head in chosen]

    def _energy_head(self, head: int) -> EnergyHead:
        chosen = self.heads[head]
        if not isinstance(chosen, EnergyHead):
            config = self.config.heads[head]
            raise ConfigError(
                f"head {config.name!r} predicts {config.label}, no energies, forces or stresses; choose a "
                "head of energies for these"
            )
        return chosen

    def _of_head(
        self, chosen: EnergyHead, graph: Graph, near: Graph, hood: Neighborhood, made: Tensor, features: bool
    ) -> tuple[Tensor, Tensor | None]:
        given = (made, near.types, near.structure, near.fparam, near.aparam)
        fitted, hidden = chosen.with_features(*given) if features else (chosen(*given), None)
        if self.bridging is not None:
            weight, table = self.bridging(hood)
            # The table is given the element's bias too, so that the energy of separated atoms is the same.
            table = table + chosen.out_bias.values[graph.types]
            fitted = (1.0 - weight) * fitted + weight * table
            hidden = None if hidden is None else (1.0 - weight).to(hidden).unsqueeze(1) * hidden
        for kind in self.config.atom_exclude_types:
            excluded = graph.types == kind
            fitted = torch.where(excluded, 0.0, fitted)
            if hidden is not None:
                hidden = hidden.masked_fill(excluded.to(hidden.device).unsqueeze(1), 0.0)
        return fitted, hidden

    @own_modes(grad=False)
    def compute(
        self,
        graph: Graph,
        head: int = 0,
        *,
        create_graph: bool = False,
        atomic_virial: bool = False,
        centers: int | None = None,
        forces_std: bool = False,
    ) -> Output:
        """Energies, forces and virials of every structure in the graph.

        Args:
            head: position of the head in `config.heads`.
            create_graph: keep the graph, so that a loss on forces can be differentiated.
            atomic_virial: also (n_atoms, 3, 3); with message passing by four backward passes and positions.
            centers: only the energies of the first so many atoms, without atomic virials.
            forces_std: also deviations of forces and the ensemble, `rigidity.MEMBERS` more backward passes.

        Raises:
            ConfigError: `create_graph` in the mode "inference"; `forces_std` of a head without a rigidity.
        """
        if create_graph and self.mode == "inference":
            raise ConfigError(
                "create_graph=True in the mode 'inference', in which forces cannot be differentiated; choose "
                "another one: potential.use('training') or potential.use('reference')"
            )
        graph = graph.usable()
        vectors = differentiable(graph.vectors.to(self.dtype).to(self.device))
        rigidity = self.rigidity(head)
        if forces_std and rigidity is None:
            raise ConfigError(
                f"there is no forces_std: the uncertainty of head {self.config.heads[head].name!r} was never "
                "measured; do it with `dpa2calc uncertainty MODEL --data ...`, or use a committee"
            )
        kept = create_graph or atomic_virial or forces_std
        with torch.enable_grad():
            ((atomic, features),) = self._atomic(graph, vectors, head, features=rigidity is not None)
            atomic = atomic[:centers]
            pair_forces = gradient(atomic.sum(), vectors, create_graph=create_graph, retain_graph=kept)
        p = pair_forces.to(graph.vectors)  # dE/dd_ij, (n, k, 3), float64
        members = virial_of_atoms = None
        if forces_std and rigidity is not None and features is not None:
            members = ensemble(graph, features, vectors, rigidity, centers=centers)
        if atomic_virial:
            with torch.enable_grad():
                virial_of_atoms = self._atomic_virial(graph, atomic, vectors, p)
        output = Output(
            energy=atomic.new_zeros(graph.n_structures).index_add(0, graph.structure[:centers], atomic),
            atomic_energies=atomic,
            forces=forces_of(p, graph),
            virial=virial_of(p, graph),
            atomic_virial=virial_of_atoms,
        )
        if rigidity is None or features is None:
            return output
        return _with_deviations(output, graph, features[:centers].detach(), rigidity, members)

    def rigidity(self, head: int) -> Rigidity | None:
        """How sure a head is, where that was measured."""
        return self.heads[head].rigidity  # type: ignore[return-value]

    def forget_uncertainty(self) -> None:
        """Drop what was measured of its heads, as their weights are about to change."""
        for head in self.heads:
            head.rigidity = None  # type: ignore[assignment]

    def _atomic_virial(self, graph: Graph, atomic: Tensor, vectors: Tensor, p: Tensor) -> Tensor:
        """Xi_j = -sum_i (de_i/dr_j) (x) (r_j - r_i), with e_i at the centre i (docs/maths.md 0)."""
        if not self.descriptor.message_passing:
            # e_i depends on its own pair vectors only, so each bond goes to its far end.
            bonds = -p.unsqueeze(-1) * graph.vectors.unsqueeze(-2)  # (n, k, 3, 3)
            return to_neighbors(bonds, graph)
        if graph.positions is None:
            raise ValueError("atomic virials of a message passing model need graph.positions")
        r = graph.positions
        # The gradient of sum_i e_i r_i,b (r_i held constant) carries the centre's place to every atom.
        q = torch.stack(
            [gradient((atomic * r[:, b]).sum(), vectors, retain_graph=b < 2) for b in range(3)],
            dim=-1,
        ).to(graph.vectors)  # (n, k, 3 [a], 3 [b]), float64
        r_j = r.unsqueeze(1) + graph.vectors  # (n, k, 3), images where they are
        far_end = q - p.unsqueeze(-1) * r_j.unsqueeze(-2)
        near_end = (p.unsqueeze(-1) * r[:, None, None, :] - q).sum(dim=1)
        return near_end + to_neighbors(far_end * graph.mask[..., None, None], graph)


def _with_deviations(
    output: Output, graph: Graph, features: Tensor, rigidity: Rigidity, members: Ensemble | None
) -> Output:
    """The output with standard deviations; features (n, m) of the n atoms whose energies were computed."""
    n, device, like = len(features), features.device, output.forces
    types, structure = graph.types[:n].to(device), graph.structure[:n].to(device)
    return dataclasses.replace(
        output,
        energy_std=rigidity.of_structures(features, types, structure, graph.n_structures).to(like),
        atomic_std=rigidity.of_atoms(features, types).to(like),
        forces_std=None if members is None else rigidity.of_forces(members.forces),
        members=members,
    )
