"""Models from files: what they say of themselves, and the cause that is told where one cannot be read."""

import subprocess
import sys

import pytest
import torch
from ase.build import molecule

import dpa2calc
from dpa2calc.calculator import DPA2Calculator
from dpa2calc.errors import CheckpointError
from dpa2calc.model.config import FittingConfig, HeadConfig
from dpa2calc.store.checkpoint import save_checkpoint


@pytest.fixture
def checkpoint(potential_of, tmp_path):
    """A checkpoint with two heads."""
    fitting = FittingConfig(neuron=(8,))
    heads = (
        HeadConfig(
            name="H2O_PBE0", functional="PBE0", elements=("O", "H"), fitting=fitting, info={"rmse": 0.5}
        ),
        HeadConfig(name="Cu_PBE", aliases=("copper",), functional="PBE", elements=("Cu",), fitting=fitting),
    )
    return save_checkpoint(potential_of("dpa2-small", heads=heads), tmp_path / "tiny.safetensors")


def test_a_file_gives_the_numbers_of_the_potential(checkpoint, potential_of):
    atoms = molecule("H2O")
    calc = DPA2Calculator(checkpoint, "h2o-pbe0", dtype="float64")
    assert calc.heads == ("H2O_PBE0", "Cu_PBE") and calc.elements == ("O", "H")
    expected = DPA2Calculator(dpa2calc.load_model(checkpoint), "H2O_PBE0", dtype="float64")
    assert calc.get_potential_energy(atoms) == expected.get_potential_energy(atoms)
    assert DPA2Calculator(str(checkpoint), "copper").head == "Cu_PBE"


def test_what_a_model_says_of_itself(checkpoint):
    heads = dpa2calc.available_heads(checkpoint)
    assert list(heads) == ["H2O_PBE0", "Cu_PBE"] and heads["H2O_PBE0"].functional == "PBE0"
    calc = DPA2Calculator(checkpoint, "PBE0", skin=0.5)
    assert repr(calc).startswith(
        f"DPA2Calculator(model={str(checkpoint)!r}, head={calc.head!r}, dtype='float32'"
    )
    text = calc.describe()
    for part in (
        "DPA-2",
        "cutoff      4.2 Å",
        "repinit    4.2 Å, nsel 30",
        "Cu_PBE (copper)",
        "[O H]",
        "rmse: 0.5",
    ):
        assert part in text
    assert "skin = 0.5" in text


def test_import_is_light_and_the_first_name_brings_the_rest():
    code = (
        "import sys, dpa2calc; assert not {'torch', 'ase', 'numpy'} & set(sys.modules); "
        "dpa2calc.available_models(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_first_cause_is_kept_when_one_head_alone_cannot_be_read_either(monkeypatch):
    from dpa2calc.engine.committee import make_member

    said = {None: "the descriptors differ", "A": "its fitting net is cut off", "B": "the descriptors differ"}

    def load(model, head=None, *, dtype):
        raise CheckpointError(said[head])

    monkeypatch.setattr("dpa2calc.store.load.load_model", load)
    options = {"dtype": torch.float32, "device": torch.device("cpu")}
    with pytest.raises(CheckpointError, match=r"differ\nand its head 'A' alone: its fitting net"):
        make_member("model.pt", "A", **options)
    for head in (None, "B"):
        with pytest.raises(CheckpointError, match=r"^the descriptors differ$"):
            make_member("model.pt", head, **options)
