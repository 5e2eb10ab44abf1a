"""The kinds of files that deepmd-kit writes hold the same model; damaged and foreign ones are refused, and no
reader runs anything that a file carries."""

import io
import json
import lzma
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from deepmd_models import archive, same

from dpa2calc.deepmd.containers import open_source, read_hdf5_tree
from dpa2calc.deepmd.read import read_deepmd
from dpa2calc.deepmd.write import write_deepmd
from dpa2calc.errors import CheckpointError
from dpa2calc.store.load import load_model


class TestContainers:
    def test_yaml_is_the_same_tree(self, golden: Path, tmp_path: Path) -> None:
        packed = golden / "models" / "dpa2_tog_econf" / "model.dp.xz"
        tree = read_hdf5_tree(io.BytesIO(lzma.decompress(packed.read_bytes())), packed)

        def plain(node: Any) -> Any:
            if isinstance(node, np.ndarray):
                return {
                    "@class": "np.ndarray",
                    "@is_variable": True,
                    "@version": 1,
                    "dtype": str(node.dtype),
                    "value": node.tolist(),
                }
            if isinstance(node, dict):
                return {key: plain(value) for key, value in node.items()}
            return [plain(item) for item in node] if isinstance(node, list) else node

        path = tmp_path / "model.yaml"
        path.write_text(yaml.safe_dump(plain(tree)))
        assert same(read_deepmd(path), read_deepmd(packed))

    def test_dp_and_pt_hold_the_same(self, medium: Path, tmp_path: Path) -> None:
        potential = read_deepmd(medium)
        again = read_deepmd(write_deepmd(potential, tmp_path / "m.dp"))
        assert same(potential, again)
        assert load_model(tmp_path / "m.dp", dtype=torch.float32).dtype == torch.float32

    @pytest.mark.parametrize("share", [0.2, 0.9])
    @pytest.mark.parametrize("name", ["dpa2_tiny_medium/model.pt.xz", "dpa2_tiny_all/model.dp.xz"])
    def test_truncated(self, golden: Path, tmp_path: Path, name: str, share: float) -> None:
        packed = golden / "models" / name
        content = lzma.decompress(packed.read_bytes())
        path = tmp_path / "cut"
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(CheckpointError, match=r"truncated or damaged|cannot be read as plain weights"):
            read_deepmd(path)
        path.write_bytes(packed.read_bytes()[:-100])
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            read_deepmd(path)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_foreign(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="there is no model file"):
            read_deepmd(tmp_path / "none.pt")
        other = tmp_path / "other.pt"
        torch.save({"weights": torch.zeros(3)}, other)
        with pytest.raises(CheckpointError, match=r"no deepmd-kit checkpoint \(no `_extra_state`\)"):
            read_deepmd(other)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), other)
        with pytest.raises(CheckpointError, match=r"no deepmd-kit model \(no model_def_script\)"):
            read_deepmd(other)
        (tmp_path / "x.yaml").write_text("a: [1, 2")
        with pytest.raises(CheckpointError, match="no YAML file"):
            read_deepmd(tmp_path / "x.yaml")
        (tmp_path / "x.yaml").write_text("a: 1")
        with pytest.raises(CheckpointError, match="no 'model' entry"):
            read_deepmd(tmp_path / "x.yaml")


class Evil:
    """Unpickled by a careless reader, this makes a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


class TestNothingRuns:
    @pytest.mark.parametrize("suffix", [".pt", ".pth"])
    def test_pickled_calls_are_refused(self, tmp_path: Path, suffix: str) -> None:
        canary = tmp_path / "canary"
        payload = pickle.dumps({"model": Evil(canary)}, protocol=2)
        name = "model/version" if suffix == ".pt" else "model/constants.pkl"
        path = archive(tmp_path / f"evil{suffix}", payload, name)
        with pytest.raises(CheckpointError):
            read_deepmd(path)
        assert not canary.exists()

    def test_the_message_names_what_was_asked_for(self, tmp_path: Path) -> None:
        payload = pickle.dumps(Evil(tmp_path / "canary"), protocol=2)
        path = archive(tmp_path / "evil.pth", payload, "model/constants.pkl")
        with pytest.raises(CheckpointError, match=r"asks for (posix|nt)\.mkdir.*refused"):
            read_deepmd(path)

    @pytest.mark.parametrize(
        ("module", "name"),
        [
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("torch", "load"),
            ("__main__", "x"),
            ("torch._utils", "x"),
        ],
    )
    def test_every_other_global_is_refused(self, tmp_path: Path, module: str, name: str) -> None:
        payload = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"."
        path = archive(tmp_path / "evil.pth", payload, "model/constants.pkl")
        with pytest.raises(CheckpointError, match=rf"asks for {module}\.{name}, .*refused"):
            read_deepmd(path)

    def test_yaml_tags_are_refused(self, tmp_path: Path) -> None:
        canary = tmp_path / "canary"
        path = tmp_path / "evil.yaml"
        path.write_text(f"model: !!python/object/apply:os.mkdir ['{canary}']\n")
        with pytest.raises(CheckpointError, match="no YAML file"):
            read_deepmd(path)
        assert not canary.exists()

    def test_arrays_stay_within_their_bytes(self, tmp_path: Path) -> None:
        """A tensor that claims to be larger than its storage must not read foreign memory."""
        module = "__torch__.m\nEnergyModel\n"
        payload = (
            b"\x80\x02c" + module.encode() + b")\x81}(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n"
            b"((X\x07\x00\x00\x00storagectorch\nDoubleStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"
            b"K\x00(M\xe8\x03t(K\x01t\x89Ntq\x00Rub."
        )
        path = archive(tmp_path / "evil.pth", payload, "model/constants.pkl")
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("model/data/0", np.zeros(2).tobytes())
        with pytest.raises(CheckpointError, match="beyond its data"):
            read_deepmd(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_frozen_files_hold_the_same_as_their_checkpoint(medium: Path, tmp_path: Path) -> None:
    """A TorchScript file of nested modules, written by torch itself, gives back every array by name."""
    branch = open_source(medium).branches[0]

    def nest(arrays: dict[str, torch.Tensor]) -> torch.nn.Module:
        module, children = torch.nn.Module(), OrderedDict[str, dict[str, torch.Tensor]]()
        for name, value in arrays.items():
            first, _, rest = name.partition(".")
            if rest:
                children.setdefault(first, {})[rest] = value
            else:
                module.register_buffer(first, value)
        for name, inside in children.items():
            module.add_module(name, nest(inside))
        return module

    frozen = nest({f"atomic_model.{name}": value for name, value in branch.arrays.items()})
    frozen.register_buffer("min_nbor_dist", torch.tensor(branch.min_nbor_dist, dtype=torch.float64))
    frozen.model_def_script = json.dumps(branch.params)
    path = tmp_path / "frozen.pth"
    torch.jit.save(torch.jit.script(frozen), path)
    assert same(read_deepmd(path), read_deepmd(medium))


@pytest.mark.parametrize(
    ("place", "option", "value"),
    [
        (("type_embedding",), "activation_function", "tanh"),
        (("type_embedding",), "resnet_dt", True),
        (("embeddings", "networks", 0, "layers", 1), "resnet", False),
        (("embeddings", "networks", 0), "activation_function", "gelu"),
        (("attention_layers",), "do_mask", True),
        (("attention_layers",), "@version", 2),
        ((), "@version", 5),
    ],
)
def test_layers_that_are_others_than_the_options_say(
    golden: Path, tmp_path: Path, place: tuple[str | int, ...], option: str, value: object
) -> None:
    """deepmd-kit makes each layer from its own node of a `.dp`, so a node may say more than the options."""
    file = write_deepmd(read_deepmd(next((golden / "models" / "dpa1_l2").glob("model.*"))), tmp_path / "m.dp")
    with h5py.File(file, "a") as content:
        tree = json.loads(content.attrs["json"])
        node = tree["model"]["descriptor"]
        for key in place:
            node = node[key]
        node[option] = value
        content.attrs["json"] = json.dumps(tree)
    where = ".".join(map(str, ("descriptor", *place, option)))
    with pytest.raises(CheckpointError, match=rf"layers that are not supported: .*{where} = {value!r}"):
        read_deepmd(file)
