"""From graphs to results in ASE's units, for the structures that are computed together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from dpa2calc.model.potential import Output
from dpa2calc.structures.graph import Graph
from dpa2calc.structures.graph_spec import GraphSpec
from dpa2calc.structures.lattice import cell_volume, volume_or_nan
from dpa2calc.validation import head_parameters

from .committee import Member, each_spec
from .dispersion import Dispersion, dispersion_results

Results = dict[str, Any]
# Parts by atom, which D3 does not have: with dispersion they would not add up, so they are left out.
PER_ATOM = ("energies", "stresses")
_OF_ENSEMBLE = ("energy", "forces", "stress")


def has_stress(atoms: Atoms) -> bool:
    """Whether a stress is defined: something is periodic and the cell has a volume."""
    return bool(atoms.pbc.any()) and cell_volume(atoms) is not None


def member_graphs(
    members: Sequence[Member], atoms: Atoms, build: Callable[[GraphSpec], Graph]
) -> list[Graph]:
    """The graph of each member, with the parameters of its head; equal specs are built once."""
    found = []
    for graph, member in zip(each_spec(members, build), members):
        values = head_parameters(atoms, member.head.fitting)
        tensors = {name: torch.from_numpy(v).to(graph.types.device) for name, v in values.items()}
        found.append(dataclasses.replace(graph, fparam=tensors.get("fparam"), aparam=tensors.get("aparam")))
    return found


def compute(
    members: Sequence[Member],
    graphs: Sequence[Graph],
    structures: Sequence[Atoms],
    *,
    stresses: bool = False,
    forces_std: bool = False,
) -> list[Results]:
    """Results of every structure in a batch, combined over the members.

    Args:
        graphs: one collated graph for each member, on the CPU or on the member's device.
        stresses: also per-atom stresses (needs `positions` in the graphs).
        forces_std: also the deviations of forces of a single model.
    """
    per_member: list[list[Results]] = []
    for member, graph in zip(members, graphs):
        if member.head.label:
            values = member.potential.atomic_values(graph.to(member.graph_device), member.head_index)
            cuts = np.cumsum([len(atoms) for atoms in structures])[:-1]
            parts = np.split(values.detach().cpu().numpy(), cuts)
            per_member.append([{member.head.label: part.copy()} for part in parts])
            continue
        output = member.potential.compute(
            graph.to(member.graph_device), member.head_index, atomic_virial=stresses, forces_std=forces_std
        )
        per_member.append(split(output, structures))
    return [combine(results) for results in zip(*per_member)]


def changes_of_members(
    members: Sequence[Member], graphs: Sequence[Graph], atoms: Atoms
) -> dict[str, np.ndarray]:
    """By how much an ensemble differs from the model: draws of the last layer, or a committee from its mean.

    Returns:
        "energy" (k,) eV, "forces" (k, n_atoms, 3) eV/Å and, where it is defined, "stress" (k, 6) eV/Å³.
    """
    if len(members) > 1:
        alone = [compute([member], [graph], [atoms])[0] for member, graph in zip(members, graphs)]
        made = {key: np.array([result[key] for result in alone]) for key in _OF_ENSEMBLE if key in alone[0]}
        return {key: values - values.mean(axis=0) for key, values in made.items()}
    (member,), (graph,) = members, graphs
    output = member.potential.compute(graph.to(member.graph_device), member.head_index, forces_std=True)
    assert output.members is not None
    drawn = output.members
    changes = {"energy": drawn.energy[:, 0].cpu().numpy(), "forces": drawn.forces.cpu().numpy()}
    if has_stress(atoms):
        changes["stress"] = _stress(drawn.virial[:, 0].cpu().numpy(), atoms)
    return changes


def add_dispersion(results: Results, atoms: Atoms, settings: Dispersion | None) -> None:
    """Add D3(BJ) to energy, forces and stress in place, and take out what has no dispersion.

    Raises:
        MissingDependencyError: dftd3 is not installed.
        ConfigError, ElementError: no D3 parameters for the functional or an element.
    """
    if settings is None:
        return
    d3 = dispersion_results(atoms, settings)
    results["energy"] += d3.energy
    results["free_energy"] += d3.energy
    results["forces"] = results["forces"] + d3.forces
    if "stress" in results:
        results["stress"] = results["stress"] + d3.stress
    for key in PER_ATOM:
        results.pop(key, None)


def combine(results: Sequence[Results]) -> Results:
    """Means over the members, and the standard deviations energy_std (eV) and forces_std (n_atoms, 3).

    Of another property than energies: its own, with _std behind the name.

    The deviations are those of the members around their mean (divided by their number M, as is usual
    for model deviation): sigma^2 = 1/M sum_m (x_m - <x>)^2.
    """
    if len(results) == 1:
        return results[0]
    out: Results = {}
    for key in (key for key in results[0] if not key.endswith("_std")):  # a member's own doubt is another
        if all(key in result for result in results):
            values = np.array([result[key] for result in results])
            out[key] = float(values.mean()) if values.ndim == 1 else values.mean(axis=0)
    if "energy" not in out:
        return out | {f"{key}_std": np.std([r[key] for r in results], axis=0) for key in out}
    out["energy_std"] = float(np.std([result["energy"] for result in results]))
    out["forces_std"] = np.std([result["forces"] for result in results], axis=0)
    return out


def split(output: Output, structures: Sequence[Atoms]) -> list[Results]:
    """Cut a batch's output into results in ASE's units and conventions.

    stress (6,) and stresses (n_atoms, 6) in eV/Å^3, order xx yy zz yz xz xy; the stresses of all atoms
    add up to the stress.
    """
    energy, energies, forces, virial = (
        x.detach().cpu().numpy()
        for x in (output.energy, output.atomic_energies, output.forces, output.virial)
    )
    per_atom, energy_std, energies_std, forces_std = (
        None if x is None else x.detach().cpu().numpy()
        for x in (output.atomic_virial, output.energy_std, output.atomic_std, output.forces_std)
    )
    results: list[Results] = []
    start = 0
    for index, atoms in enumerate(structures):
        rows = slice(start, start + len(atoms))
        start += len(atoms)
        result: Results = {
            "energy": float(energy[index]),
            "free_energy": float(energy[index]),
            "energies": energies[rows].copy(),
            "forces": forces[rows].copy(),
        }
        if energy_std is not None and energies_std is not None:
            result["energy_std"] = float(energy_std[index])
            result["energies_std"] = energies_std[rows].copy()
        if forces_std is not None:
            result["forces_std"] = forces_std[rows].copy()
        if has_stress(atoms):
            result["stress"] = _stress(virial[index], atoms)
            if per_atom is not None:
                result["stresses"] = _stress(per_atom[rows], atoms)
        results.append(result)
    return results


def _stress(virial: np.ndarray, atoms: Atoms) -> np.ndarray:
    """-(W + W^T) / 2V in Voigt order, (..., 3, 3) -> (..., 6)."""
    symmetric = -0.5 * (virial + np.swapaxes(virial, -1, -2)) / volume_or_nan(atoms)
    return full_3x3_to_voigt_6_stress(symmetric)
