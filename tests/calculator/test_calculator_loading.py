"""Models from files: our own and deepmd-kit's, and every way in which a file can be wrong."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from ase.build import molecule

import dpa2calc
from dpa2calc.calculator import DPA2Calculator
from dpa2calc.errors import CheckpointError, DownloadError
from dpa2calc.model.config import FittingConfig, HeadConfig
from dpa2calc.store.checkpoint import save_checkpoint
from dpa2calc.store.registry import ModelEntry


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


def test_missing_file():
    with pytest.raises(CheckpointError, match=r"there is no file .*nothing\.safetensors"):
        DPA2Calculator("/tmp/no/such/nothing.safetensors")
    with pytest.raises(CheckpointError, match="'H2O' is neither a file nor the name of a model"):
        DPA2Calculator("H2O")


def test_truncated_file(checkpoint):
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors is truncated or no safetensors file"):
        DPA2Calculator(checkpoint)
    checkpoint.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors is empty"):
        DPA2Calculator(checkpoint)


def test_foreign_files(tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not one of dpa2calc"):
        DPA2Calculator(tmp_path / "foreign.safetensors")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "foreign.pt")
    (tmp_path / "text.pt").write_text("this is no model")
    for name in ("foreign.pt", "text.pt"):
        with pytest.raises(CheckpointError, match=name):
            DPA2Calculator(tmp_path / name)


def test_wrong_checksum_in_the_cache(checkpoint, tmp_path, monkeypatch):
    right = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    entry = ModelEntry(name="tiny", description="", licence="", file="tiny.safetensors", sha256=right)
    monkeypatch.setattr("dpa2calc.store.registry._entries", lambda: (entry,))
    monkeypatch.setenv("DPA2CALC_CACHE", str(tmp_path))
    atoms = molecule("H2O")
    assert np.isfinite(DPA2Calculator("tiny", "PBE0").get_potential_energy(atoms))
    data = bytearray(checkpoint.read_bytes())
    data[-3] ^= 1  # one bit
    checkpoint.write_bytes(data)
    with pytest.raises(DownloadError, match=r"checksum|sha256"):
        DPA2Calculator("tiny", "PBE0")


def test_import_is_light_and_the_first_name_brings_the_rest():
    code = (
        "import sys, dpa2calc; assert not {'torch', 'ase', 'numpy'} & set(sys.modules); "
        "dpa2calc.available_models(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_first_cause_is_kept_when_one_head_alone_cannot_be_read_either(monkeypatch):
    from dpa2calc.engine.committee import make_member
    from dpa2calc.errors import CheckpointError

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
