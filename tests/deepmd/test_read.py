"""Reading deepmd-kit's files: heads, options of older versions, damaged options."""

import io
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from deepmd_models import edited, same

from dpa2calc.deepmd.branch import Branch, Source
from dpa2calc.deepmd.containers import read_hdf5_tree
from dpa2calc.deepmd.read import potential_from_source, read_deepmd
from dpa2calc.deepmd.write import write_deepmd
from dpa2calc.errors import CheckpointError, HeadError
from dpa2calc.store.load import load_model
from dpa2calc.structures.graph_builder import graph_from_atoms


class TestHeads:
    def test_all_heads_share_one_descriptor(self, several: Path, structures: dict[str, Atoms]) -> None:
        potential = read_deepmd(several)
        assert [head.name for head in potential.config.heads] == ["water_1", "metal_2", "mol_3"]
        assert potential.config.neighbor_rule == "nearest"
        # The one-hot of the case embedding follows the alphabetical order of the names.
        hot = {
            head.name: int(module.case_embd.argmax())
            for head, module in zip(potential.config.heads, potential.heads)
        }
        assert hot == {"metal_2": 0, "mol_3": 1, "water_1": 2}
        graph = graph_from_atoms(structures["ethanol_nopbc"], potential.config)
        for index, head in enumerate(potential.config.heads):
            alone = read_deepmd(several, head.name)
            assert len(alone.heads) == 1
            torch.testing.assert_close(
                alone.compute(graph).forces, potential.compute(graph, index).forces, rtol=0, atol=1e-13
            )

    def test_elements_are_those_of_the_training_data(self, several: Path) -> None:
        elements = [head.elements for head in read_deepmd(several).config.heads]
        assert set(elements[0]) == {"H", "O"}
        assert set(elements[2]) == {"H", "C", "O"}

    def test_alias(self, several: Path) -> None:
        def name_it(state: Any) -> None:
            branches = state["_extra_state"]["model_params"]["model_dict"]
            branches["mol_3"]["model_branch_alias"] = ["Drugs"]

        edited(several, name_it)
        assert read_deepmd(several, "Drugs").config.heads[0].name == "mol_3"
        assert load_model(several, "3").config.heads[0].name == "mol_3"  # unique ending
        assert read_deepmd(several).config.heads[2].aliases == ("Drugs",)

    def test_unknown_head(self, several: Path) -> None:
        with pytest.raises(HeadError, match=r"no head 'gold'(.|\n)*water_1(.|\n)*metal_2(.|\n)*mol_3"):
            read_deepmd(several, "gold")

    def test_branches_with_different_descriptors(self, several: Path) -> None:
        def spoil(state: Any) -> None:
            name = "model.mol_3.atomic_model.descriptor.repformers.g2_embd.bias"
            state[name] = state[name] + 1.0

        edited(several, spoil)
        with pytest.raises(CheckpointError, match=r"do not share their descriptor \(.*g2_embd\.bias differs"):
            read_deepmd(several)
        assert read_deepmd(several, "mol_3").config.heads[0].name == "mol_3"

    def test_branches_with_different_options(self, several: Path) -> None:
        def spoil(state: Any) -> None:
            branches = state["_extra_state"]["model_params"]["model_dict"]
            branches["mol_3"]["descriptor"]["repformer"]["update_style"] = "res_avg"

        edited(several, spoil)
        with pytest.raises(CheckpointError, match=r"water_1 and mol_3 of .* differ in descriptor"):
            read_deepmd(several)


class TestOtherVersions:
    def test_flat_options_of_the_first_versions(self, golden: Path, tmp_path: Path) -> None:
        """`repinit_rcut`-style keys, none of the options added later, and a type embedding with bias."""
        expected = read_deepmd(golden / "models" / "dpa2_tiny_paper" / "model.dp.xz")
        path = write_deepmd(expected, tmp_path / "old.pt")

        def age(state: Any) -> None:
            params = state["_extra_state"]["model_params"]
            new = params["descriptor"]
            old: dict[str, Any] = {"type": "dpa2", "tebd_dim": new["repinit"].pop("tebd_dim")}
            for block in ("repinit", "repformer"):
                for key, value in new[block].items():
                    later = key.startswith(("use_", "g1_out_", "three_body", "tebd_input", "ln_eps"))
                    if not later and key not in ("resnet_dt", "type_one_side", "trainable_ln"):
                        old[f"{block}_{key.replace('activation_function', 'activation')}"] = value
            old["repformer_add_type_ebd_to_seq"] = False
            params["descriptor"] = old
            bias = torch.zeros(4, dtype=torch.float64)
            for name in list(state):
                if name.endswith("min_nbor_dist") or "_networks." in name:
                    del state[name]
            prefix = "model.Default.atomic_model.descriptor.type_embedding.embedding.embedding_net.layers.0"
            state[f"{prefix}.bias"] = bias

        aged = read_deepmd(edited(path, age))
        repformer = aged.config.descriptor.repformer  # type: ignore[union-attr]
        assert repformer == expected.config.descriptor.repformer  # type: ignore[union-attr]
        assert not (repformer.use_sqrt_nnei or repformer.g1_out_conv or repformer.g1_out_mlp)
        assert aged.config.descriptor.use_tebd_bias  # type: ignore[union-attr]
        assert aged.config.min_neighbor_distance is None
        stored = aged.state_dict()
        for name, value in expected.state_dict().items():
            assert torch.equal(stored[name], value), name

    def test_only_one_copy_of_the_networks_is_needed(self, medium: Path) -> None:
        def drop(state: Any) -> None:
            for name in [name for name in state if ".networks." in name]:
                del state[name]

        expected = read_deepmd(medium)
        assert same(read_deepmd(edited(medium, drop)), expected)

    def test_bare_state_dict(self, medium: Path) -> None:
        expected = read_deepmd(medium)
        torch.save(torch.load(medium, weights_only=True)["model"], medium)
        assert same(read_deepmd(medium), expected)

    def test_missing_arrays_are_named(self, medium: Path) -> None:
        def drop(state: Any) -> None:
            for name in [name for name in state if "layers.1.linear2" in name or "min_nbor" in name]:
                del state[name]

        with pytest.raises(CheckpointError, match=r"lacks 2 arrays(.|\n)*layers\.1\.linear2\.matrix") as info:
            read_deepmd(edited(medium, drop))
        assert "model.Default.atomic_model.descriptor.repformers.layers.1.linear2.bias" in str(info.value)

    def test_entries_that_are_not_needed_may_be_missing(self, medium: Path) -> None:
        """Published checkpoints lack statistics of the labels and empty buffers."""

        def drop(state: Any) -> None:
            for name in list(state):
                if name.endswith(("out_std", "bias_atom_e", "min_nbor_dist")) or "compress" in name:
                    del state[name]

        expected = read_deepmd(medium).state_dict()
        stored = read_deepmd(edited(medium, drop)).state_dict()
        assert all(torch.equal(stored[name], value) for name, value in expected.items())

    def test_unknown_options_are_reported(self, medium: Path, caplog: pytest.LogCaptureFixture) -> None:
        def add(state: Any) -> None:
            descriptor = state["_extra_state"]["model_params"]["descriptor"]
            descriptor["repformer"]["update_g9"] = True
            descriptor["brand_new"] = 1

        read_deepmd(edited(medium, add))
        assert "options not known here, ignored: descriptor.brand_new, descriptor.repformer.up" in caplog.text

    def test_weights_that_no_part_reads(self, medium: Path, caplog: pytest.LogCaptureFixture) -> None:
        name = "descriptor.repformers.new_part.matrix"

        def add(state: Any) -> None:
            state[f"model.Default.atomic_model.{name}"] = torch.ones(2, 2)

        def add_both(state: Any) -> None:
            add(state)
            state["_extra_state"]["model_params"]["descriptor"]["use_new_part"] = True

        read_deepmd(edited(medium, add))
        assert f"weights not known here, ignored: {name}" in caplog.text
        words = rf"has options \(descriptor.use_new_part\) and 1 weights \({name} first\) that are not"
        with pytest.raises(CheckpointError, match=words):
            read_deepmd(edited(medium, add_both))

    @pytest.mark.parametrize(
        ("where", "value", "message"),
        [
            (("descriptor", "type"), "dpa3", r"descriptor\.type = 'dpa3' is not supported; supported: dpa2"),
            (("descriptor", "type"), "hybrid", "'hybrid' is not supported"),
            (("fitting_net", "type"), "dipole", "only energy fitting nets"),
            (("type",), "linear_ener", "only one descriptor with one energy net"),
        ],
    )
    def test_other_models(self, medium: Path, where: tuple[str, ...], value: str, message: str) -> None:
        def change(state: Any) -> None:
            section = state["_extra_state"]["model_params"]
            for key in where[:-1]:
                section = section[key]
            section[where[-1]] = value

        with pytest.raises(CheckpointError, match=message):
            read_deepmd(edited(medium, change))

    def test_wrong_shape(self, medium: Path) -> None:
        def change(state: Any) -> None:
            state["_extra_state"]["model_params"]["descriptor"]["repformer"]["g2_dim"] = 9

        with pytest.raises(CheckpointError, match=r"has shape .* but the model's options ask for"):
            read_deepmd(edited(medium, change))


def _key_paths(node: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in node.items():
        found.append((*at, key))
        if isinstance(value, dict):
            found += _key_paths(value, (*at, key))
    return found


class TestDamagedOptions:
    @pytest.mark.parametrize("value", ["nonsense", -1, None, [], {}])
    def test_every_option_may_be_wrong(self, medium: Path, value: Any) -> None:
        """Whatever is wrong with an option, the error is ours (or the option does not matter)."""
        content = torch.load(medium, weights_only=True)
        text = json.dumps(content["model"]["_extra_state"])
        for path in _key_paths(json.loads(text)["model_params"]):
            state = json.loads(text)
            section = state["model_params"]
            for key in path[:-1]:
                section = section[key]
            section[path[-1]] = value
            source = Source(path="m.pt", kind="pt", branches=(branch_of(content["model"], state),))
            try:
                potential_from_source(source)
            except CheckpointError as error:
                assert "m.pt" in str(error), path

    def test_trees(self, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        packed = golden / "models" / "dpa2_tog_econf" / "model.dp.xz"
        target = tmp_path / "broken.dp"
        target.write_bytes(lzma.decompress(packed.read_bytes()))
        tree = read_hdf5_tree(io.BytesIO(target.read_bytes()), packed)
        for path in _key_paths(tree["model"]):
            broken = dict(tree)
            section = broken
            for key in ("model", *path[:-1]):
                section[key] = dict(section[key])
                section = section[key]
            del section[path[-1]]
            # as if the file held it; writing each takes longer than reading it
            monkeypatch.setattr("dpa2calc.deepmd.containers.read_hdf5_tree", lambda *_, tree=broken: tree)
            try:
                read_deepmd(target)
            except CheckpointError as error:
                assert "broken.dp" in str(error), path


def branch_of(state: Any, extra: Any) -> Branch:
    """The branch of a single-task state dict with other options."""
    prefix = "model.Default.atomic_model."
    arrays = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return Branch(name="Default", params=extra["model_params"], arrays=arrays)


def test_networks_of_two_precisions_lose_nothing(medium: Path, tmp_path: Path) -> None:
    """A descriptor in float64 beside a fitting net in float32, as an input.json may ask for."""
    content = torch.load(medium, weights_only=True)
    state = content["model"]
    state["_extra_state"]["model_params"]["fitting_net"]["precision"] = "float32"
    for name in state:
        if ".fitting_net." in name and name.endswith((".matrix", ".bias", ".idt")):
            state[name] = state[name].float()
    torch.save(content, tmp_path / "two.pt")
    plain, two = read_deepmd(medium), read_deepmd(tmp_path / "two.pt")
    assert two.dtype == torch.float64
    for name, value in two.descriptor.state_dict().items():
        assert torch.equal(value, plain.descriptor.state_dict()[name]), name


@pytest.mark.parametrize("stored", [0.5, 0.25])
def test_default_frame_parameters_are_those_of_the_array(golden: Path, tmp_path: Path, stored: float) -> None:
    """deepmd-kit evaluates a .pt with its array; a run from another model keeps it beside its own options."""
    plain = read_deepmd(next((golden / "models" / "dpa2_tog_fit_fparam").glob("model.*")))
    n = plain.config.heads[0].fitting.numb_fparam

    def change(state: Any) -> None:
        state["_extra_state"]["model_params"]["fitting_net"]["default_fparam"] = [0.5] * n
        array = torch.full((n,), stored, dtype=torch.float64)
        state["model.Default.atomic_model.fitting_net.default_fparam_tensor"] = array

    path = edited(write_deepmd(plain, tmp_path / "model.pt"), change)
    assert read_deepmd(path).config.heads[0].fitting.default_fparam == (stored,) * n


@pytest.mark.parametrize("name", ["dpa2_tiny_medium", "sea_oneside"])
def test_vacuum_energies_that_are_all_null_remove_nothing(name: str, golden: Path, tmp_path: Path) -> None:
    """As in deepmd-kit, which takes such a list for none."""
    plain = read_deepmd(next((golden / "models" / name).glob("model.*")))
    nulls = [None] * plain.config.n_types

    def change(state: Any) -> None:
        state["_extra_state"]["model_params"]["fitting_net"]["atom_ener"] = nulls

    potential = read_deepmd(edited(write_deepmd(plain, tmp_path / "model.pt"), change))
    assert potential.config.heads[0].fitting.atom_ener == tuple(nulls)
    graph = graph_from_atoms(Atoms(plain.config.type_map[0]), plain.config)  # of an atom alone all is left
    assert torch.equal(potential.compute(graph).energy, plain.compute(graph).energy)
