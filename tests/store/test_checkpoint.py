"""The own checkpoint: what is written comes back, and every kind of wrong file has its own message."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ase.build import molecule
from rewriting import rewrite_checkpoint
from safetensors.torch import load_file, save_file

from dpa2calc.errors import CheckpointError
from dpa2calc.files.atomic import atomic_path
from dpa2calc.model.config import (
    DPA2Config,
    FittingConfig,
    HeadConfig,
    ModelConfig,
    RepformerConfig,
    RepinitConfig,
    ThreeBodyConfig,
)
from dpa2calc.model.potential import Potential
from dpa2calc.store import checkpoint
from dpa2calc.store.checkpoint import checkpoint_info, is_checkpoint, load_checkpoint, save_checkpoint
from dpa2calc.store.load import load_model
from dpa2calc.structures.graph_builder import graph_from_atoms


@pytest.fixture
def potential() -> Potential:
    heads = (
        HeadConfig(
            name="water",
            aliases=("H2O",),
            functional="PBE0-TS",
            elements=("H", "O"),
            fitting=FittingConfig(neuron=(8, 8), numb_fparam=1, default_fparam=(0.5,)),
            info={"test": {"forces_rmse": 0.04}},
        ),
        HeadConfig(name="alcohol", fitting=FittingConfig(neuron=(6,))),
    )
    descriptor = DPA2Config(
        repinit=RepinitConfig(nsel=30, neuron=(4, 8), axis_neuron=2, tebd_dim=3),
        three_body=ThreeBodyConfig(nsel=12, cutoff=4.5, neuron=(2, 4)),
        repformer=RepformerConfig(nsel=10, nlayers=2, g1_dim=8, g2_dim=4, attn1_hidden=4, attn2_hidden=4),
        exclude_types=((0, 1),),
    )
    torch.manual_seed(0)
    built = Potential(ModelConfig(type_map=("H", "C", "O"), descriptor=descriptor, heads=heads))
    built.heads[0].out_bias.values += torch.tensor([-13.1, -1000.123456789012345, 2.0], dtype=torch.float64)
    return built


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_comes_back(potential: Potential, tmp_path: Path, dtype: torch.dtype) -> None:
    potential.to(dtype)
    path = save_checkpoint(potential, tmp_path / "m.safetensors", extra_info={"licence": "MIT"})
    again = load_checkpoint(path)
    assert again.config == potential.config
    assert again.config.heads[0].info == {"test": {"forces_rmse": 0.04}}
    state, expected = again.state_dict(), potential.state_dict()
    assert list(state) == list(expected)
    for name, value in expected.items():
        assert state[name].dtype == value.dtype and torch.equal(state[name], value), name
    assert again.heads[0].out_bias.values.dtype == torch.float64
    graph = graph_from_atoms(molecule("CH3CH2OH"), potential.config)
    for head in (0, 1):
        assert torch.equal(again.compute(graph, head).energy, potential.compute(graph, head).energy)


def test_precision_on_request(potential: Potential, tmp_path: Path) -> None:
    path = save_checkpoint(potential, tmp_path / "m.safetensors")
    assert load_checkpoint(path, dtype=torch.float32).dtype == torch.float32
    assert load_model(path).dtype == torch.float64


def test_info_without_weights(potential: Potential, tmp_path: Path) -> None:
    path = save_checkpoint(potential, tmp_path / "m.safetensors", extra_info={"doi": ["10.1/x"]})
    info = checkpoint_info(path)
    assert info.extra == {"doi": ["10.1/x"]} and info.format_version == 1 and info.dtype == "float64"
    assert [head.name for head in info.config.heads] == ["water", "alcohol"]


def test_loading_leaves_the_random_state_alone(potential: Potential, tmp_path: Path) -> None:
    path = save_checkpoint(potential, tmp_path / "m.safetensors")
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_checkpoint(path)
    assert torch.equal(torch.rand(1), expected)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no model file .*nowhere"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("keep", [4, 30, 0.5, 0.999])
def test_truncated_file(potential: Potential, tmp_path: Path, keep: float) -> None:
    path = save_checkpoint(potential, tmp_path / "m.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(CheckpointError, match="truncated or no safetensors"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError):
        load_model(path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").touch()
    with pytest.raises(CheckpointError, match="is empty"):
        load_model(tmp_path / "m.safetensors")


def test_foreign_files(tmp_path: Path) -> None:
    foreign = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, foreign)
    assert is_checkpoint(foreign)
    with pytest.raises(CheckpointError, match="not one of dpa2calc"):
        load_model(foreign)
    text = tmp_path / "notes.txt"
    text.write_text("no model at all, just words")
    with pytest.raises(CheckpointError, match="no deepmd-kit model"):
        load_model(text)


def test_newer_format(potential: Potential, tmp_path: Path) -> None:
    path = save_checkpoint(potential, tmp_path / "m.safetensors")
    rewrite_checkpoint(path, lambda header, _: header.update(format_version=99, written_by="9.0"))
    with pytest.raises(CheckpointError, match=r"format 99, written by dpa2calc 9\.0.*upgrade it"):
        load_checkpoint(path)


def test_older_format_is_upgraded(
    potential: Potential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_checkpoint(potential, tmp_path / "m.safetensors")
    rewrite_checkpoint(path, lambda header, _: header.update(format_version=0, extra=None))
    monkeypatch.setitem(checkpoint._UPGRADES, 0, lambda header: header | {"extra": {"upgraded": True}})
    assert checkpoint_info(path).extra == {"upgraded": True}


def test_damaged_header_and_wrong_tensors(potential: Potential, tmp_path: Path) -> None:
    path = save_checkpoint(potential, tmp_path / "m.safetensors")
    rewrite_checkpoint(path, lambda header, _: header.update(config={"type_map": ["H"], "descriptr": {}}))
    with pytest.raises(CheckpointError, match=r"header .* is damaged.*descriptr"):
        load_checkpoint(path)
    path = save_checkpoint(potential, tmp_path / "m.safetensors")
    rewrite_checkpoint(path, lambda _, tensors: tensors.pop("heads.0.nets.0.layers.0.bias"))
    with pytest.raises(CheckpointError, match=r"does not fit.*heads\.0\.nets\.0\.layers\.0\.bias"):
        load_checkpoint(path)


def test_extra_info_must_be_plain(potential: Potential, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="JSON"):
        save_checkpoint(potential, tmp_path / "m.safetensors", extra_info={"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="JSON"):
        save_checkpoint(potential, tmp_path / "m.safetensors", extra_info={"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_broken_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        Path(temporary).write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("format_version", "1"),
        ("format_version", True),
        ("dtype", "float16"),
        ("dtype", ["float32"]),
        ("written_by", 5),
        ("compressed", "false"),
        ("extra", []),
        ("config", []),
        ("config.heads", [None]),
        ("config.heads", []),
        ("config.heads.0.aliases", "H2O"),
        ("config.heads.0.elements", [1]),
        ("config.heads.0.fitting.default_fparam", [0.5, 0.5]),
        ("config.heads.0.fitting.neuron", [10**6, 10**6]),
        ("config.heads.0.fitting.atom_ener", [0.0]),
        ("config.descriptor", None),
        ("config.descriptor.kind", "dpa9"),
        ("config.descriptor.exclude_types", [[5, 5]]),
        ("config.descriptor.repinit.cutoff", "6"),
        ("config.descriptor.repinit.cutoff", 1e300),
        ("config.descriptor.env_protection", -1.0),
        ("config.descriptor.repinit.set_davg_zero", "false"),
        ("config.descriptor.repinit.nsel", 30.5),
        ("config.descriptor.repinit.activation", 5),
        ("config.descriptor.repinit.activation", "silut:x"),
        ("config.descriptor.repinit.tebd_dim", -5),
        ("config.descriptor.repinit.neuron", [10**9]),
        ("config.descriptor.repformer.nlayers", 10**9),
        ("config.descriptor.repformer.nlayers", 900),
        ("config.type_map", "HCO"),
        ("config.type_map", [1, 2, 3]),
        ("config.type_map", ["Zz", "Qq", "Xy"]),
        ("config.type_map", [f"X{k}" for k in range(100_000)]),
        ("config.pair_exclude_types", [[0, 77]]),
        ("config.pair_exclude_types", [[0]]),
        ("config.atom_exclude_types", [99]),
        ("config.atom_exclude_types", [-1]),
        ("config.min_neighbor_distance", "abc"),
        ("config.min_neighbor_distance", float("nan")),
        ("config.neighbor_rule", "some"),
    ],
)
def test_headers_with_a_wrong_type_or_size(
    potential: Potential, tmp_path: Path, place: str, value: object
) -> None:
    """Nothing is cast, and nothing is allocated that the file does not hold."""
    path = save_checkpoint(potential, tmp_path / "m.safetensors")
    *outer, last = place.split(".")

    def change(node: Any, _: object) -> None:
        for key in outer:
            node = node[int(key)] if isinstance(node, list) else node[key]
        node[last] = value

    rewrite_checkpoint(path, change)
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000 + "]" * 100_000, '{"format_version": ' + "9" * 5000 + "}", "null", "{}", "x"]
)
def test_headers_that_are_no_header(potential: Potential, tmp_path: Path, text: str) -> None:
    path = save_checkpoint(potential, tmp_path / "m.safetensors")
    save_file(load_file(path), path, metadata={"dpa2calc": text})
    with pytest.raises(CheckpointError, match=r"header of .* is damaged"):
        checkpoint_info(path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float16, torch.bfloat16, torch.float32])
def test_weights_of_another_type(potential: Potential, tmp_path: Path, dtype: torch.dtype) -> None:
    path = save_checkpoint(potential, tmp_path / "m.safetensors")
    name = "heads.0.nets.0.layers.0.matrix"
    rewrite_checkpoint(path, lambda _, tensors: tensors.update({name: tensors[name].to(dtype)}))
    with pytest.raises(CheckpointError, match=rf"holds float64 networks.*{name}"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_weights_that_are_not_finite(potential: Potential, tmp_path: Path, value: float) -> None:
    with torch.no_grad():
        next(potential.parameters())[0] = value
    path = save_checkpoint(potential, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="not finite"):
        load_checkpoint(path)
