"""Rounded fitting nets: how far they move, and that files keep them exactly in half the room."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read
from rewriting import rewrite_checkpoint
from safetensors import safe_open

from dpa2calc import DPA2Calculator, load_model
from dpa2calc.errors import CheckpointError
from dpa2calc.store.checkpoint import checkpoint_info, load_checkpoint, save_checkpoint
from dpa2calc.store.rounding import round_nets, round_uncertainties

EXAMPLES = Path(__file__).parents[2] / "examples"
MATRIX = "heads.0.nets.0.layers.1.matrix"


@pytest.fixture(scope="module")
def shipped():
    return load_model("default", "H2O-PBE0TS")


@pytest.fixture
def rounded():
    potential = load_model("default", "H2O-PBE0TS")
    # Not on a grid already, as the shipped weights may be.
    state = potential.state_dict()
    generator = torch.Generator().manual_seed(0)
    state[MATRIX].add_(0.001 * torch.randn(state[MATRIX].shape, generator=generator))
    before = {name: value.clone() for name, value in state.items()}
    round_nets(potential)
    return potential, before


def test_weights_move_to_the_grid(rounded):
    potential, before = rounded
    after = potential.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert MATRIX in changed
    for name in changed:
        assert name.startswith("heads.0.nets.") and name.endswith(".matrix"), name
        size = float(before[name].square().mean().sqrt())
        moved = (after[name] - before[name]).abs()
        assert before[name].shape[1] > 1
        assert float(moved.max()) <= size / 128 and float(moved.mean()) < size / 1024  # large ones move more
        assert torch.equal(after[name].half().float(), after[name])
        assert len(after[name].unique()) < 5000
    assert potential.rigidity(0) is None  # of other weights
    again = {name: value.clone() for name, value in after.items()}
    round_nets(potential)
    assert all(torch.equal(again[name], value) for name, value in potential.state_dict().items())


def test_forces_hardly_move_and_energies_by_an_offset_of_each_element(shipped):
    water = read(EXAMPLES / "data" / "water64.extxyz")
    frames = []
    for seed in range(3):
        frames.append(water.copy())
        frames[-1].rattle(0.02, rng=np.random.default_rng(seed))
    exact = DPA2Calculator(shipped).evaluate(frames)
    potential = load_model("default", "H2O-PBE0TS")
    round_nets(potential)
    near = DPA2Calculator(potential).evaluate(frames)
    force = np.concatenate([(a["forces"] - b["forces"]).ravel() for a, b in zip(near, exact)])
    energy = np.array([a["energy"] - b["energy"] for a, b in zip(near, exact)]) / len(water)
    of_head = shipped.config.heads[0].info["test_errors"]["H2O-PBE0TS"]["force_rmse"]
    assert 1e3 * np.sqrt(np.mean(force**2)) < 0.005 * of_head
    assert np.ptp(energy) < 0.05e-3 and abs(energy.mean()) < 3e-3


def test_files_hold_rounded_nets_as_halves(rounded, shipped, tmp_path):
    potential, before = rounded
    path = save_checkpoint(potential, tmp_path / "rounded.safetensors")
    with safe_open(path, framework="pt") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}
        packed = len(zlib.compress(file.get_tensor(MATRIX).numpy().tobytes())) / before[MATRIX].numel()
    assert kinds[MATRIX] == "F16" and kinds["heads.0.nets.0.layers.3.matrix"] == "F32"
    assert {kind for name, kind in kinds.items() if name.startswith("descriptor.")} <= {"F32", "F64", "I64"}
    assert packed < 14 / 8  # bytes a number
    again = load_checkpoint(path)
    assert again.dtype == torch.float32
    for name, value in potential.state_dict().items():
        assert again.state_dict()[name].dtype == value.dtype
        assert torch.equal(again.state_dict()[name], value), name
    assert checkpoint_info(path).format_version == 2
    double = load_checkpoint(path, dtype=torch.float64)
    assert torch.equal(double.state_dict()[MATRIX], potential.state_dict()[MATRIX].double())


def test_unrounded_nets_are_written_as_before(shipped, tmp_path):
    potential = load_model("default", "H2O-PBE0TS").double()
    assert checkpoint_info(save_checkpoint(potential, tmp_path / "double.safetensors")).format_version == 1


def test_halves_in_a_file_of_the_first_format_are_refused(rounded, tmp_path):
    path = save_checkpoint(rounded[0], tmp_path / "rounded.safetensors")
    rewrite_checkpoint(path, lambda header, _: header.update(format_version=1))
    with pytest.raises(CheckpointError, match=r"another type .* is F16, expected F32"):
        load_checkpoint(path)

    def halve(header, tensors):
        header["format_version"] = 2
        tensors.update({name: v.half() for name, v in tensors.items() if name.startswith("descriptor.")})

    rewrite_checkpoint(path, halve)
    with pytest.raises(CheckpointError, match=r"another type"):
        load_checkpoint(path)


def test_rounded_uncertainties_say_nearly_the_same(shipped):
    water = read(EXAMPLES / "data" / "water64.extxyz")
    exact = DPA2Calculator(shipped).evaluate([water])[0]
    potential = load_model("default", "H2O-PBE0TS")
    round_uncertainties(potential)
    triangle = potential.rigidity(0).tensors()["triangle"]
    assert torch.equal(torch.round(32 * triangle), 32 * triangle)
    near = DPA2Calculator(potential).evaluate([water])[0]
    assert near["energy"] == exact["energy"]
    assert near["energy_std"] == pytest.approx(exact["energy_std"], rel=0.03)
    assert near["energies_std"] == pytest.approx(exact["energies_std"], rel=0.05)
