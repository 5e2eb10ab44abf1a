"""Every number of deepmd-kit's golden arrays, in float64: energies, forces, virials, descriptors.

The small set in tests/data runs always. The whole set is one command:

    DPA2CALC_GOLDEN=/path/to/golden pytest tests/deepmd/test_golden.py -m slow
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from deepmd_models import LARGE, SMALL, golden_structures
from other_device import DEVICES, standing_in

from dpa2calc.deepmd.read import read_deepmd
from dpa2calc.model.potential import Potential
from dpa2calc.structures.graph import collate
from dpa2calc.structures.graph_builder import graph_from_atoms

QUANTITIES = ("energy", "atom_energy", "forces", "virial", "atom_virial", "descriptor")

# Structures where the nsel-th neighbour has a tie, broken arbitrarily in the reference: only atoms
# whose own neighbours are unique are compared there, and only energies and descriptors.
TIES = {
    ("dpa2_paper_from32", "cu1_fcc_primitive"): [],
    ("dpa2_tiny_paper", "cu1_fcc_primitive"): [],
    ("dpa2_tog_small_nsel", "cu1_fcc_primitive"): [],
    # 80 Cu neighbours end between an atom's own six images at 5.2 Å:
    ("sea_oneside", "dense32_over_nsel"): [i for i in range(32) if i not in (18, 24, 27, 31)],
    ("sea_davgzero", "dense32_over_nsel"): [i for i in range(32) if i not in (18, 24, 27, 31)],
}


def names(root: Path) -> list[str]:
    skip = ("structures", "econf_table", "intermediate_")
    return sorted(path.stem for path in root.glob("*.npz") if not path.stem.startswith(skip))


def model_file(root: Path, name: str) -> Path:
    folder = {"dpa2_paper_from32": "dpa2_paper_fp32"}.get(name, name.split("__")[0])
    found = sorted((root / "models" / folder).glob("model.*"))
    wanted = ".pt" if "__" in name else ".dp"
    return next((path for path in found if wanted in path.suffixes), found[0])


def results(potential: Potential, batch: list[Atoms], virials: bool) -> list[dict[str, np.ndarray]]:
    """Of each structure, all of them in one graph."""
    graph = collate([graph_from_atoms(atoms, potential.config) for atoms in batch])
    graph = graph.to(next(potential.parameters()).device)
    output = potential.compute(graph, 0, atomic_virial=virials)
    of_atoms = {
        "atom_energy": output.atomic_energies,
        "forces": output.forces,
        "descriptor": potential.descriptors(graph),
    }
    if output.atomic_virial is not None:
        of_atoms["atom_virial"] = output.atomic_virial
    values = {key: value.split([len(atoms) for atoms in batch]) for key, value in of_atoms.items()}
    values |= {"energy": output.energy.unbind(), "virial": output.virial.unbind()}
    return [
        {key: value[k].detach().double().cpu().numpy() for key, value in values.items()}
        for k in range(len(batch))
    ]


def in_batches(structures: list[str]) -> list[list[str]]:
    """The smaller ones together; the largest, and one that has no neighbours, alone."""
    alone = [name for name in structures if name in ("dense32_over_nsel", "single_atom_nopbc")]
    return [*([name] for name in alone), [name for name in structures if name not in alone]]


def compare(
    root: Path,
    name: str,
    dtype: torch.dtype = torch.float64,
    *,
    mode: str = "inference",
    device: str = "cpu",
    only: str = "",
    together: bool = False,
) -> None:
    head = name.split("__")[1] if "__" in name else None
    potential = read_deepmd(model_file(root, name), head, dtype=dtype).to(device).use(mode)
    single = "float32" in name or dtype == torch.float32  # the reference or the model is rounded
    atoms_of = golden_structures(root)
    with np.load(root / f"{name}.npz") as file:
        golden = {key: np.asarray(file[key]) for key in file.files}
    structures = sorted({name for name in (key.split("/")[0] for key in golden) if only in name})
    virials = any(key.endswith("/atom_virial") for key in golden)
    for batch in in_batches(structures) if together else [[structure] for structure in structures]:
        for structure, seen in zip(batch, results(potential, [atoms_of[s] for s in batch], virials)):
            rows: list[int] | slice = slice(None)
            quantities: tuple[str, ...] = QUANTITIES
            if (name, structure) in TIES:
                rows, quantities = TIES[name, structure], ("atom_energy", "descriptor")
            for quantity in quantities:
                key = f"{structure}/{quantity}"
                if key not in golden:
                    continue
                expected, value = golden[key], seen[quantity]
                if quantity == "energy":
                    tolerance = (1e-6 if single else 1e-10) * max(1.0, abs(float(expected)))
                else:
                    expected, value = expected[rows], value[rows]
                    tolerance = 3e-5 if single else 1e-8 if "virial" in quantity else 1e-10
                np.testing.assert_allclose(
                    value, expected, rtol=0, atol=tolerance, err_msg=f"{name}: {structure}: {quantity}"
                )


@pytest.mark.parametrize("mode", ["reference", "inference", "training"])
@pytest.mark.parametrize("name", names(SMALL))
def test_small_set(name: str, mode: str) -> None:
    compare(SMALL, name, mode=mode, together=mode != "inference")


@pytest.mark.filterwarnings("ignore:.*meta parameter.*:UserWarning")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", names(SMALL))
def test_every_option_on_another_device(name: str, device: str) -> None:
    with standing_in(device):
        compare(SMALL, name, device=device, only="tilted4")


def test_float32_networks_stay_close() -> None:
    compare(SMALL, "dpa2_tog_float32", torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("name", names(LARGE) if LARGE.is_dir() else [])
def test_whole_set(name: str, mode: str) -> None:
    compare(LARGE, name, mode=mode)


def test_ties_are_ties() -> None:
    """The atoms left out above really have a tie at the last slot of a type section."""
    potential = read_deepmd(model_file(SMALL, "sea_oneside"))
    atoms = golden_structures(SMALL)["dense32_over_nsel"]
    graph = graph_from_atoms(atoms, potential.config)
    distances = torch.linalg.vector_norm(graph.vectors, dim=-1)
    tied = []
    for i in range(len(atoms)):
        copper = (graph.mask[i] & (graph.types[graph.neighbors[i]] == 2)).nonzero()[:, 0]
        last, first_left_out = distances[i, copper[79]], distances[i, copper[80]]
        if abs(float(last - first_left_out)) < 1e-9:
            tied.append(i)
    assert tied == [18, 24, 27, 31]


def test_a_batch_gives_the_numbers_of_its_parts() -> None:
    potential = read_deepmd(model_file(SMALL, "dpa2_tiny_all"))
    parts = [graph_from_atoms(atoms, potential.config) for atoms in golden_structures(SMALL).values()]
    together = potential.compute(collate(parts))
    alone = [potential.compute(part) for part in parts]
    torch.testing.assert_close(together.energy, torch.cat([out.energy for out in alone]), rtol=0, atol=1e-11)
    torch.testing.assert_close(together.forces, torch.cat([out.forces for out in alone]), rtol=0, atol=1e-11)
