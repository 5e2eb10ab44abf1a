"""Model files that ask for more than they hold, that lie about types, or that other programs wrote."""

import dataclasses
import io
import json
import lzma
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from architectures import DEEPPOT_SE, DPA1, small_dpa2, small_model
from deepmd_models import archive, edited

from dpa2calc.deepmd.read import read_deepmd
from dpa2calc.deepmd.write import write_deepmd
from dpa2calc.errors import CheckpointError
from dpa2calc.files import limits
from dpa2calc.model.config import DeepPotSEConfig, DescriptorConfig, DPA1Config, FittingConfig, HeadConfig
from dpa2calc.model.potential import Potential
from dpa2calc.store.load import load_model

DESCRIPTORS: dict[str, DescriptorConfig] = {
    "se_e2_a": dataclasses.replace(DEEPPOT_SE, sel=(6, 8)),
    "dpa1": dataclasses.replace(DPA1, attn_layer=0, type_one_side=False),
    "dpa2": small_dpa2(three_body=None, nlayers=1),
}


def small(kind: str) -> Potential:
    return with_two_types(DESCRIPTORS[kind])


def with_two_types(descriptor: DescriptorConfig) -> Potential:
    return small_model(descriptor, type_map=("O", "H"))


def rewritten(path: Path, change: Callable[[dict[str, Any]], None], kind: str = "dpa1") -> Path:
    """A `.pt` file with something changed in its state."""
    return edited(write_deepmd(small(kind), path), change)


def params(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = state["_extra_state"]["model_params"]
    return found


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("type_map", "OH"),
        ("type_map", ["O", 1]),
        ("type_map", ["O", "O"]),
        ("type_map", ["Zz", "Qq"]),
        ("type_map", [f"X{k}" for k in range(3_000)]),
        ("atom_exclude_types", [99]),
        ("pair_exclude_types", [[0, 77]]),
        ("pair_exclude_types", [[0]]),
        ("info", []),
        ("descriptor", []),
        ("descriptor.rcut", "6"),
        ("descriptor.rcut", float("nan")),
        ("descriptor.resnet_dt", "false"),
        ("descriptor.type_one_side", 0),
        ("descriptor.sel", 1.5),
        ("descriptor.sel", "many"),
        ("descriptor.tebd_dim", -5),
        ("descriptor.attn_layer", 10**9),
        ("descriptor.neuron", [10**9]),
        ("descriptor.neuron", [100_000, 100_000]),
        ("descriptor.neuron", 8),
        ("descriptor.activation_function", 5),
        ("descriptor.precision", "float8"),
        ("fitting_net.neuron", [100_000, 100_000]),
        ("fitting_net.numb_fparam", True),
        ("fitting_net.atom_ener", ["a", "b"]),
    ],
)
def test_options_of_another_type_or_size(tmp_path: Path, place: str, value: Any) -> None:
    def change(state: dict[str, Any]) -> None:
        *outer, last = place.split(".")
        node = params(state)
        for key in outer:
            node = node[key]
        node[last] = value

    with pytest.raises(CheckpointError):
        load_model(rewritten(tmp_path / "m.pt", change))


MATRIX = "model.Default.atomic_model.fitting_net.filter_layers.networks.0.layers.0.matrix"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *[
            (lambda m, d=d: m.to(d), "is stored as")
            for d in (torch.int8, torch.bool, torch.float16, torch.bfloat16)
        ],
        (lambda m: m * torch.inf, "not finite"),
        (lambda m: m * torch.nan, "not finite"),
        (lambda m: torch.zeros(1, dtype=m.dtype).expand(10**9), "made of 1 repeated ones"),
        (lambda m: m[:1], "has shape"),
    ],
)
def test_weights_of_another_type(tmp_path: Path, change: Callable[[torch.Tensor], Any], words: str) -> None:
    def work(state: dict[str, Any]) -> None:
        for key in (MATRIX, MATRIX.replace(".networks.", "._networks.")):
            state[key] = change(state[key])

    with pytest.raises(CheckpointError, match=words):
        load_model(rewritten(tmp_path / "m.pt", work))


def test_short_floats_where_the_options_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def work(state: dict[str, Any]) -> None:
        params(state)["fitting_net"]["precision"] = "bfloat16"
        for key in (MATRIX, MATRIX.replace(".networks.", "._networks.")):
            state[key] = state[key].bfloat16()

    model = load_model(rewritten(tmp_path / "m.pt", work))
    assert model.dtype == torch.float64  # that of the descriptor
    assert (
        "m.pt is a model in bfloat16, in which deepmd-kit also computes; here it is computed in float64"
        in caplog.text
    )
    first, second = (model.heads[0].get_parameter(f"nets.0.layers.{n}.matrix") for n in (0, 1))
    assert torch.equal(first, first.bfloat16().double())
    assert not torch.equal(second, second.bfloat16().double())


class TestMissingOptions:
    """deepmd-kit makes its classes without what a file leaves out; not with the defaults of input.json."""

    @pytest.mark.parametrize("one_side", [True, False])
    def test_type_one_side(self, tmp_path: Path, one_side: bool) -> None:
        model = with_two_types(dataclasses.replace(DEEPPOT_SE, sel=(6, 8), type_one_side=one_side))
        path = write_deepmd(model, tmp_path / "m.pt")
        edited(path, lambda state: params(state)["descriptor"].pop("type_one_side"))
        assert load_model(path).config == model.config

    @pytest.mark.parametrize(
        ("descriptor", "left_out"),
        [
            (
                DeepPotSEConfig(sel=(6, 8)),
                ("neuron", "axis_neuron", "type_one_side", "set_davg_zero", "resnet_dt",
                 "activation_function"),
            ),
            (
                DPA1Config(attn_layer=2, nsel=12, type_one_side=False),
                ("neuron", "axis_neuron", "smooth_type_embedding", "type_one_side", "set_davg_zero", "attn",
                 "attn_layer", "tebd_dim", "tebd_input_mode", "concat_output_tebd", "use_tebd_bias"),
            ),
        ],
    )  # fmt: skip
    def test_defaults_of_classes(
        self, tmp_path: Path, descriptor: DescriptorConfig, left_out: tuple[str, ...]
    ) -> None:
        head = HeadConfig(fitting=FittingConfig(neuron=(128, 128, 128)))
        model = small_model(descriptor, type_map=("O", "H"), heads=(head,))

        def leave_out(state: dict[str, Any]) -> None:
            for key in left_out:
                del params(state)["descriptor"][key]
            del params(state)["fitting_net"]

        path = edited(write_deepmd(model, tmp_path / "m.pt"), leave_out)
        assert load_model(path).config.descriptor == descriptor

    @pytest.mark.parametrize("mode", ["concat", "strip"])
    def test_stripped_type_embedding_goes_first(self, tmp_path: Path, mode: Any) -> None:
        model = with_two_types(dataclasses.replace(DPA1, attn_layer=0, tebd_input_mode=mode))
        older = {"stripped_type_embedding": mode == "strip", "tebd_input_mode": "concat"}
        path = write_deepmd(model, tmp_path / "m.pt")
        edited(path, lambda state: params(state)["descriptor"].update(older))
        assert load_model(path).config == model.config

    @pytest.mark.parametrize("value", ["auto", "auto:1.1", None])
    @pytest.mark.parametrize(
        ("kind", "section", "key"),
        [("dpa1", "", "sel"), ("dpa2", "repinit", "nsel"), ("dpa2", "repformer", "nsel")],
    )
    def test_auto_is_told_from_the_statistics(
        self, tmp_path: Path, kind: str, section: str, key: str, value: Any
    ) -> None:
        def change(state: dict[str, Any]) -> None:
            node = params(state)["descriptor"]
            (node[section] if section else node)[key] = value

        assert load_model(rewritten(tmp_path / "m.pt", change, kind)).config == small(kind).config

    def test_auto_for_several_types_names_the_way_out(self, tmp_path: Path) -> None:
        def change(state: dict[str, Any]) -> None:
            params(state)["descriptor"]["sel"] = "auto"

        with pytest.raises(CheckpointError, match="dp neighbor-stat"):
            load_model(rewritten(tmp_path / "m.pt", change, "se_e2_a"))


class TestAppetites:
    @pytest.mark.parametrize("name", ["model/version", "model/constants.pkl"])
    @pytest.mark.parametrize(
        "payload",
        [
            b"\x80\x05\x96" + (10**12).to_bytes(8, "little") + b".",  # BYTEARRAY8
            b"\x80\x05\x8e" + (10**12).to_bytes(8, "little") + b".",  # BINBYTES8
            b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85R.",
            b"\x80\x02Nr\xff\xff\xff\x7f.",  # a memo of two billion entries
            b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b"N.",  # a frame
        ],
    )
    def test_pickles_that_announce_sizes(self, tmp_path: Path, name: str, payload: bytes) -> None:
        with pytest.raises(CheckpointError):
            read_deepmd(archive(tmp_path / "m.pt", payload, name))

    def test_storage_larger_than_its_bytes(self, tmp_path: Path) -> None:
        path = write_deepmd(small("dpa1"), tmp_path / "m.pt")
        with zipfile.ZipFile(path) as old:
            contents = {name: old.read(name) for name in old.namelist()}
        data = max((name for name in contents if "/data/" in name), key=lambda name: len(contents[name]))
        contents[data] = contents[data][:8]
        with zipfile.ZipFile(path, "w") as new:
            for name, content in contents.items():
                new.writestr(name, content)
        with pytest.raises(CheckpointError, match="has 8 bytes only"):
            load_model(path)

    def test_packed_members_and_streams(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "_FREE", 1 << 20)
        bomb = archive(tmp_path / "m.pth", bytes(20 << 20), "model/constants.pkl")
        with pytest.raises(CheckpointError, match="announces 20,971,520 bytes"):
            load_model(bomb)
        packed = tmp_path / "m.pt.xz"
        packed.write_bytes(lzma.compress(bytes(20 << 20), preset=0))
        with pytest.raises(CheckpointError, match="unpacks to over"):
            read_deepmd(packed)

    @pytest.mark.parametrize("how", [{"compression": "gzip"}, {}])
    def test_declared_datasets(self, tmp_path: Path, how: dict[str, Any]) -> None:
        path = tmp_path / "m.dp"
        with h5py.File(path, "w") as file:
            file.attrs["json"] = json.dumps({"model": {"type": "standard", "@variables": {"out_bias": "x"}}})
            file.create_dataset("x", shape=(10**12,), dtype="f8", chunks=(10**5,), **how)
        with pytest.raises(CheckpointError, match="announces 8,000,000,000,000 bytes"):
            load_model(path)

    @pytest.mark.parametrize("value", ["a", np.array([b"x"]), np.zeros(2, dtype=complex)])
    def test_datasets_that_are_no_numbers(self, tmp_path: Path, value: Any) -> None:
        path = tmp_path / "m.dp"
        with h5py.File(path, "w") as file:
            file.attrs["json"] = json.dumps({"model": {"type": "standard", "@variables": {"out_bias": "x"}}})
            file["x"] = value
        with pytest.raises(CheckpointError, match="not an array of numbers"):
            load_model(path)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("model: {a: {'@class': np.ndarray, value: [a, b], dtype: U400000000}}", "the dtype"),
            (
                "model: {a: {'@class': np.ndarray, value: ['1'], dtype: float64}}",
                "something else than numbers",
            ),
            ("a: &a [x]\n" + "".join(f"b{k}: &b{k} [*a, *a]\n" for k in range(1)), "no 'model' entry"),
            ("[" * 100_000, "no YAML|no deepmd-kit"),
            ("- " * 100_000, "no YAML|no deepmd-kit"),
            ("a: &a [*a]", "nested too deeply|no YAML"),
        ],
    )
    def test_yaml(self, tmp_path: Path, text: str, words: str) -> None:
        path = tmp_path / "m.yaml"
        path.write_text(text)
        with pytest.raises(CheckpointError, match=words):
            load_model(path)

    def test_yaml_that_repeats_itself(self, tmp_path: Path) -> None:
        text = "a: &a [x, x, x, x, x, x, x, x, x]\n"
        for old, new in zip("abcdefgh", "bcdefghi"):
            text += f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
        (tmp_path / "m.yaml").write_text(text)
        with pytest.raises(CheckpointError, match="repeats parts of itself"):
            load_model(tmp_path / "m.yaml")


class Whole(torch.nn.Module):
    """Stands for the model of another program, saved as a whole."""


def pickled(thing: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("graph.pb", b"\n\x12\n\x04name\x12\x05Const", r"TensorFlow.*dp convert-backend graph\.pb graph\.dp"),
        ("other.pb", b"\x00\x01", r"TensorFlow.*dp convert-backend"),
        ("old.pt", pickle.dumps({"a": 1}), r"a pickle .*never opened.*state_dict"),
        ("whole.pt", pickled(Whole()), r"asks for .*Whole.*whole Python object"),
        ("state.pt", pickled({"epoch": 3, "state": {}}), r"no deepmd-kit checkpoint.*epoch"),
        ("page.pt", b"<!-- x --><html>", "a web page"),
        ("pointer.pt", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("packed.pt", b"\x1f\x8b\x08\x00", "packed with gzip"),
        ("model.json", b'{"model": {}}', "Paddle"),
        ("words.pt", b"just words", r"readable are \.safetensors"),
    ],
)
def test_foreign_files_are_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"(?s){words}"):
        load_model(path)


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/model.json", "{}")
    with pytest.raises(CheckpointError, match=r"archive/model\.json.*dp convert-backend"):
        load_model(path)
