"""Files of deepmd-kit's other backends, and what pair tables are made with: numbers of deepmd-kit 3.2.

The files in `data/backends` have random weights; their energies, forces and virials are those of its
`DeepPot` for one dense crystal, in which every atom has more neighbours than `nsel` where that is small.
"""

import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms

from dpa2calc.deepmd.containers import open_source, read_hdf5_tree
from dpa2calc.deepmd.read import read_deepmd
from dpa2calc.deepmd.write import write_deepmd
from dpa2calc.errors import CheckpointError
from dpa2calc.structures.graph_builder import graph_from_atoms

BACKENDS = Path(__file__).parents[1] / "data" / "backends"
FILES = sorted(path.name for path in BACKENDS.glob("*.xz"))
ON_GRAPHS = ("exportable_dpa1.pt.xz", "exportable_dpa2.pt.xz")


@pytest.mark.parametrize("name", FILES)
def test_numbers(name: str) -> None:
    """The exportable backend sums over all neighbours where it has graphs; alpha is that of the model."""
    potential = read_deepmd(BACKENDS / name)
    assert potential.config.neighbor_rule == ("all" if name in ON_GRAPHS else "nearest")
    with np.load(BACKENDS / "numbers.npz") as theirs:
        symbols = [potential.config.type_map[k] for k in theirs["types"]]
        atoms = Atoms(symbols, theirs["positions"], cell=theirs["cell"], pbc=True)
        output = potential.compute(graph_from_atoms(atoms, potential.config))
        key = name.removesuffix(".xz")
        assert float(output.energy.detach()) == pytest.approx(float(theirs[f"{key}|energy"]), rel=1e-11)
        np.testing.assert_allclose(output.forces, theirs[f"{key}|forces"], atol=1e-9)
        np.testing.assert_allclose(output.virial[0], theirs[f"{key}|virial"], atol=1e-9)


def test_a_model_on_graphs_whose_empty_slots_would_count_is_refused(tmp_path: Path) -> None:
    changed(BACKENDS / ON_GRAPHS[0], tmp_path / "shifted.pt", set_davg_zero=False)
    with pytest.raises(CheckpointError, match="exportable backend without set_davg_zero"):
        read_deepmd(tmp_path / "shifted.pt")
    # with graphs turned off it is a model as any other
    changed(BACKENDS / ON_GRAPHS[0], tmp_path / "dense.pt", graphs=False)
    assert read_deepmd(tmp_path / "dense.pt").config.neighbor_rule == "nearest"


def changed(source: Path, target: Path, *, graphs: bool = True, **descriptor: object) -> None:
    """A checkpoint with other options of the descriptor, or with graphs turned off."""
    (branch,) = open_source(source).branches
    params = {**branch.params, "descriptor": {**branch.params["descriptor"], **descriptor}}
    state: dict[str, object] = {
        f"model.Default.atomic_model.{name}": value for name, value in branch.arrays.items()
    }
    state["model.Default.atomic_model.descriptor.graph_lower_disabled"] = torch.tensor(not graphs)
    state["model.Default.atomic_model.any.w"] = torch.zeros(1)  # what tells the backends apart
    torch.save({"model": {**state, "_extra_state": {"model_params": params}}}, target)


def test_smin_alpha_goes_where_deepmd_reads_it(tmp_path: Path) -> None:
    """Its PyTorch backend takes 0.1 for every .pt whatever the file says; a .dp and a .pth have their own."""
    own = {"bridged.pt.xz": 0.1, "bridged.pth.xz": 0.25, "exportable_bridged.pt.xz": 0.3}
    for name, alpha in own.items():
        potential = read_deepmd(BACKENDS / name)
        assert potential.bridging is not None and potential.bridging.config.smin_alpha == alpha
        written = write_deepmd(potential, tmp_path / "again.dp")
        assert read_deepmd(written).config.bridging == potential.config.bridging
    with pytest.raises(CheckpointError, match=r"smin_alpha is 0\.3,.* write a \.dp"):
        write_deepmd(potential, tmp_path / "again.pt")


@pytest.mark.parametrize(("kind", "rule"), [("nlist", "nearest"), ("graph", "all")])
def test_exported_files_hold_their_model_as_json(golden: Path, tmp_path: Path, kind: str, rule: str) -> None:
    """`.pt2` and `.pte` as deepmd-kit 3.2 packs them; their programs are not touched."""
    plain = read_deepmd(next((golden / "models" / "dpa2_tiny_paper").glob("model.*")))
    file = tmp_path / "model.pt2"
    with open(write_deepmd(plain, tmp_path / "model.dp"), "rb") as written:
        tree = read_hdf5_tree(written, file)
    script = tree.pop("model_def_script")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data/weights/weight_0", b"\x80\x04.")
        archive.writestr("model/extra/model.json", json.dumps(tree, default=as_deepmd_writes_arrays))
        archive.writestr("model/extra/model_def_script.json", json.dumps(script))
        archive.writestr("model/extra/metadata.json", json.dumps({"lower_input_kind": kind}))
    potential = read_deepmd(file)
    assert potential.config.neighbor_rule == rule
    assert potential.config.descriptor == plain.config.descriptor
    for name, value in plain.state_dict().items():
        assert torch.equal(potential.state_dict()[name], value), name


def as_deepmd_writes_arrays(array: np.ndarray) -> dict[str, object]:
    return {
        "@class": "np.ndarray",
        "@is_variable": True,
        "dtype": array.dtype.name,
        "value": array.tolist(),
    }


def test_programs_beside_the_arrays_are_left_alone(golden: Path, tmp_path: Path) -> None:
    """A `.hlo` of the JAX backend is a `.dp` with programs under the root's "@variables"."""
    plain = read_deepmd(next((golden / "models" / "dpa2_tiny_medium").glob("model.*")))
    file = tmp_path / "model.hlo"
    write_deepmd(plain, tmp_path / "model.dp").rename(file)
    with h5py.File(file, "a") as content:
        tree = json.loads(content.attrs["json"])
        content["variable_9999"] = np.void(b"a program")
        tree["@variables"]["stablehlo"] = "/variable_9999"
        content.attrs["json"] = json.dumps(tree)
    potential = read_deepmd(file)
    assert potential.config == plain.config
