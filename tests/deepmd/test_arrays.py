"""The names of arrays, both ways: every architecture and a pair table there and back, bit by bit."""

import dataclasses
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, make_potential

from dpa2calc.deepmd.arrays import branch_arrays, descriptor_entries, head_entries, table_values
from dpa2calc.deepmd.read import read_deepmd
from dpa2calc.deepmd.schema import DESCRIPTORS
from dpa2calc.deepmd.write import write_deepmd
from dpa2calc.model.config import BridgingConfig
from dpa2calc.model.potential import Potential

# Those of deepmd-kit.
NAMES = [name for name, (config, _) in ARCHITECTURES.items() if config.kind in DESCRIPTORS]


def same(a: Potential, b: Potential) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_comes_back(name: str, tmp_path: Path) -> None:
    potential = make_potential(name)
    for suffix in (".pt", ".dp"):
        again = read_deepmd(write_deepmd(potential, tmp_path / f"m{suffix}"))
        assert again.config.descriptor == potential.config.descriptor
        assert same(again, potential)


@pytest.mark.parametrize("name", NAMES)
def test_every_array_has_a_name_of_its_own_and_its_shape(name: str) -> None:
    potential = make_potential(name)
    entries = descriptor_entries(potential) + head_entries(potential, 0)
    assert [entry.ours for entry in entries] == list(potential.state_dict())
    assert len({entry.theirs for entry in entries}) == len(entries)
    own = potential.state_dict()
    for entry in entries:
        shape, theirs = tuple(own[entry.ours].shape), tuple(branch_arrays(potential, 0)[entry.theirs].shape)
        n_types = potential.config.n_types
        expected = {"slots": (n_types, entry.nsel, 4), "column": (n_types, 1), "bias": (1, n_types, 1)}
        assert theirs == expected.get(entry.form, shape)
        assert entry.nsel <= potential.config.descriptor.nsel


def test_a_pair_table_comes_back(tmp_path: Path) -> None:
    plain = make_potential("dpa1-l0")
    bridging = BridgingConfig(
        cutoff=4.2, nsel=30, switch_min=0.8, switch_max=1.6, n_intervals=5, r_min=0.1, spacing=0.5
    )
    potential = Potential(dataclasses.replace(plain.config, bridging=bridging))
    assert potential.bridging is not None
    potential.load_state_dict(plain.state_dict(), strict=False)
    potential.bridging.coefficients.copy_(torch.rand(3, 3, 5, 4, dtype=torch.float64))
    values = table_values(potential.bridging)
    assert values.shape == (6, 7)  # the ends of the intervals; r, and six pairs of three elements
    assert values[:, 0] == pytest.approx([0.1, 0.6, 1.1, 1.6, 2.1, 2.6])
    assert values[2, 3] == float(potential.bridging.coefficients[0, 2, 2, 3])
    for suffix in (".pt", ".dp"):
        again = read_deepmd(write_deepmd(potential, tmp_path / f"m{suffix}"))
        assert again.config.bridging == bridging
        assert same(again, potential)
    assert (tmp_path / "m_pair_table.txt").exists()
