"""What happens inside the descriptor, stage by stage, against deepmd-kit's own intermediate arrays.

When a number of test_golden.py is wrong, this says where. The reference keeps padded neighbour lists in
its own order; neighbours are matched here by where they are.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deepmd_models import LARGE, SMALL, golden_structures
from torch import Tensor

from dpa2calc.deepmd.read import read_deepmd
from dpa2calc.model.descriptors.dpa2 import DPA2
from dpa2calc.model.type_embedding import electron_configurations
from dpa2calc.structures.graph_builder import graph_from_atoms


def names(root: Path) -> list[str]:
    return sorted(path.stem.removeprefix("intermediate_") for path in root.glob("intermediate_*.npz"))


def record(descriptor: DPA2) -> dict[str, Any]:
    """Outputs of the stages, filled when the model next runs."""
    seen: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, inputs: Any, output: Any) -> None:
            seen[f"{name}.in"], seen[f"{name}.out"] = inputs, output

        return hook

    descriptor.type_embedding.register_forward_hook(keep("type_embedding"))
    descriptor.repinit.register_forward_hook(keep("repinit"))
    if descriptor.three_body is not None:
        descriptor.three_body.register_forward_hook(keep("three_body"))
    if descriptor.g1_shape is not None:
        descriptor.g1_shape.register_forward_hook(keep("g1_shape"))
    for k, layer in enumerate(descriptor.repformer.layers):
        layer.register_forward_hook(keep(f"layer{k}"))
    return seen


def close(value: Any, expected: Any, what: str) -> None:
    np.testing.assert_allclose(value.detach().numpy(), expected, rtol=0, atol=1e-10, err_msg=what)


def compare(root: Path, name: str, *, mode: str) -> None:
    path = next((root / "models" / name).glob("model.dp*"))
    potential = read_deepmd(path).use(mode)
    descriptor = potential.descriptor
    assert isinstance(descriptor, DPA2)
    seen = record(descriptor)
    with np.load(root / f"intermediate_{name}.npz") as file:
        reference = dict(file)
    atoms_of = golden_structures(root)
    for structure in sorted({key.split("/")[0] for key in reference}):
        at = f"{name}: {structure}"
        golden = {k.split("/")[1]: v[0] for k, v in reference.items() if k.startswith(f"{structure}/")}
        graph = graph_from_atoms(atoms_of[structure], potential.config)
        output = potential.compute(graph)
        n_types = potential.config.n_types
        full = reference[f"{structure}/type_embedding_full"]
        close(seen["type_embedding.out"], full[:n_types], f"{at}: type embedding")
        for stage, key in (("repinit", "repinit.out0"), ("three_body", "three_body.out0")):
            if key in golden:
                close(seen[f"{stage}.out"], golden[key], f"{at}: {stage}")
        close(seen["g1_shape.out"], golden["g1_shape.out0"], f"{at}: shape transform")
        for k in range(len(descriptor.repformer.layers)):
            compare_layer(seen, golden, k, graph, f"{at}: layer {k}")
        close(output.atomic_energies, golden["atom_energy"][:, 0], f"{at}: atomic energies")
        close(output.forces, golden["forces"], f"{at}: forces")


def tables(context: Any) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Mask (n, k) of a layer's pairs, and what makes (n, k, ...) tables of their values."""
    counts = context.count[:, 0].long()
    k = int(counts.max())
    taken = torch.arange(k) < counts[:, None]

    def table(values: Tensor) -> Tensor:
        out = values.new_zeros(len(counts), k, *values.shape[1:])
        for block in context.cut.rows:
            out[block.atoms, : block.width] = block.of(values)[:, :k]
        return out

    return taken, table


def compare_layer(seen: dict[str, Any], golden: dict[str, np.ndarray], k: int, graph: Any, at: str) -> None:
    """g1 of every atom, and g2, h2 and switch of every pair, before and after one layer."""
    g1, g2, h2 = seen[f"layer{k}.out"]
    _, g2_in, h2_in, context = seen[f"layer{k}.in"][:4]
    taken, of_pairs = tables(context)
    close(g1, golden[f"layer{k}.out.g1"], f"{at}: g1")
    lists, coordinates = golden[f"layer{k}.in.nlist"], golden["ext_coord"]
    mask = golden[f"layer{k}.in.nlist_mask"].astype(bool)
    assert mask.sum() == int(taken.sum()), f"{at}: number of neighbours"
    for i in range(len(lists)):
        ours = taken[i].nonzero()[:, 0]
        vectors = graph.vectors[i, ours].numpy()
        theirs = coordinates[lists[i, mask[i]]] - coordinates[i]
        if len(theirs) == 0:
            continue
        apart = np.linalg.norm(vectors[None] - theirs[:, None], axis=-1)  # (theirs, ours)
        assert apart.min(axis=1).max() < 1e-9, f"{at}: neighbours of atom {i}"
        order = ours[torch.from_numpy(apart.argmin(axis=1))]
        for value, key in (
            (g2_in, "in.g2"),
            (h2_in, "in.h2"),
            (g2, "out.g2"),
            (h2, "out.h2"),
            (context.switch, "in.sw"),
        ):
            close(
                of_pairs(value)[i, order], golden[f"layer{k}.{key}"][i, mask[i]], f"{at}: {key} of atom {i}"
            )


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("name", names(SMALL))
def test_stages(name: str, mode: str) -> None:
    compare(SMALL, name, mode=mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("name", names(LARGE) if LARGE.is_dir() else [])
def test_all_stages(name: str, mode: str) -> None:
    compare(LARGE, name, mode=mode)


def test_electron_configurations() -> None:
    """The whole table of 118 elements, in deepmd-kit's +-1 before normalisation."""
    with np.load(SMALL / "econf_table.npz") as file:
        elements, table = list(file["elements"]), file["table"]
    ours = electron_configurations(elements) * np.sqrt(118.0)
    np.testing.assert_allclose(ours, table, rtol=0, atol=1e-12)
