"""A part of a structure and the ghosts around it: what a process of a domain decomposition computes.

The energies of the part's own atoms, and their derivatives with respect to all atoms, ghosts included. Summed
over the parts these are the forces of the whole, when those on ghosts go to the atoms that they stand for.
"""

from __future__ import annotations

import torch
from ase import Atoms

from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.model.neighborhood import Environment
from dpa2calc.model.potential import Output
from dpa2calc.structures.graph import Graph
from dpa2calc.structures.graph_builder import GraphBuilder
from dpa2calc.structures.graph_spec import GraphSpec
from dpa2calc.validation import DistanceCheck

from .committee import Member
from .streaming import Streaming, why_not_streamed


def width_of_ghosts(member: Member) -> float:
    """Å around a part within which its energies need every ghost.

    Raises:
        ConfigError: a message-passing descriptor that does not say how far it looks.
    """
    reach = member.potential.descriptor.reach
    if reach is None:
        raise ConfigError(
            f"{member.label}: its descriptor ({member.config.descriptor.kind}) passes messages and does not "
            "say how far it looks (`reach`), so a structure cannot be divided; run it on one process"
        )
    return max(reach, member.spec.cutoff)


class Cluster:
    """Evaluates own atoms first, ghosts after them, of a part that moves."""

    def __init__(self, member: Member, *, skin: float, check: DistanceCheck) -> None:
        self.member, self._check = member, check
        self._stream = None
        if why_not_streamed(member.potential, member.head_index) is None:
            self._stream = Streaming(member.potential, member.head_index, skin=skin)
        elif any(p.shifted for p in member.potential.modules() if isinstance(p, Environment)):
            raise ConfigError(
                f"{member.label}: its statistics have a mean, so that empty places of a neighbour list count "
                "by the type of the structure's first atom, which a part does not have; run it on one "
                "process, or from tables (compress=True)"
            )
        self._build = GraphBuilder(member.spec, skin=skin, device=member.graph_device)

    def __call__(self, atoms: Atoms, centers: int, first_type: int) -> Output:
        """Energies of the first `centers` atoms; forces (n_atoms, 3) and virial are derivatives of their sum.

        Args:
            atoms: without periodic directions, periodic images are ghosts too.
            first_type: of the whole structure's first atom, see `Streaming`.

        Raises:
            StructureError: as in the other engines, and where the rule "nearest" would leave neighbours out.
        """
        if self._stream is None:
            return self._dense(atoms, centers)
        output = self._stream(atoms, self._check, centers=centers, first_type=first_type)
        if output is None:
            raise _too_many_neighbors(self.member.spec)
        return output

    def _dense(self, atoms: Atoms, centers: int) -> Output:
        graph = self._build(atoms, inspect=self._check).to(self.member.graph_device)
        if self.member.spec.nearest and _may_leave_out(graph, self.member.spec):
            raise _too_many_neighbors(self.member.spec)
        return self.member.potential.compute(graph, self.member.head_index, centers=centers)


def _may_leave_out(graph: Graph, spec: GraphSpec) -> bool:
    """Whether a row of a block of the model is full: the choice of the nearest may depend on the order."""
    distances = torch.linalg.vector_norm(graph.vectors, dim=-1)
    for cutoff, nsel in spec.blocks:
        if bool(((distances < cutoff) & graph.mask).sum(dim=1).max() >= nsel):
            return True
    types_j = graph.types[graph.neighbors]
    counts = [((types_j == kind) & graph.mask).sum(dim=1).max() for kind in range(len(spec.type_sel))]
    return any(bool(count > sel) for count, sel in zip(counts, spec.type_sel))


def _too_many_neighbors(spec: GraphSpec) -> StructureError:
    limits = ", ".join(f"{nsel} within {cutoff:g} Å" for cutoff, nsel in spec.blocks)
    return StructureError(
        f"an atom has more neighbours than this model reads ({limits}, the nearest); which ones it leaves "
        "out may then differ between processes, so that forces would too; run it on one process"
    )
