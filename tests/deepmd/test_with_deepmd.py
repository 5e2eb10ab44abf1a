"""Files that are written here, judged by deepmd-kit itself (marked `deepmd`: a subprocess a test)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from dpa2calc.deepmd.containers import open_source
from dpa2calc.deepmd.read import read_deepmd
from dpa2calc.deepmd.write import write_deepmd
from dpa2calc.graph_builder import graph_from_atoms
from dpa2calc.model.bridging import table_coefficients
from dpa2calc.model.config import (
    BridgingConfig,
    DeepPotSEConfig,
    DPA1Config,
    DPA2Config,
    FittingConfig,
    HeadConfig,
    ModelConfig,
    RepformerConfig,
    RepinitConfig,
    ThreeBodyConfig,
)
from dpa2calc.model.potential import Potential

pytestmark = pytest.mark.deepmd
TYPE_MAP = ("O", "H", "Cu", "C")
Results = Callable[..., dict[str, np.ndarray]]


def agree(
    potential: Potential, seen: dict[str, np.ndarray], model: str, atoms_of: dict[str, Atoms], head: int = 0
) -> None:
    """Our numbers and deepmd-kit's for every structure without ties at the last neighbour."""
    checked = 0
    for name, atoms in atoms_of.items():
        if f"{model}|{name}|energy" not in seen or name == "dense32_over_nsel":
            continue
        checked += 1
        output = potential.compute(graph_from_atoms(atoms, potential.config), head)
        energy = float(seen[f"{model}|{name}|energy"])
        assert float(output.energy.detach()) == pytest.approx(energy, rel=1e-12, abs=1e-12), name
        for quantity, value in (("forces", output.forces), ("virial", output.virial[0])):
            np.testing.assert_allclose(
                value.detach().numpy(), seen[f"{model}|{name}|{quantity}"], rtol=0, atol=1e-9, err_msg=name
            )
    assert checked >= 6


def same_arrays(a: Path, b: Path) -> None:
    """Two deepmd-kit files hold the same arrays bit by bit."""
    for one, two in zip(open_source(a).branches, open_source(b).branches, strict=True):
        ours = {key: value for key, value in two.arrays.items() if key in one.arrays}
        assert set(one.arrays) - set(ours) <= {"inner.out_bias", "inner.out_std"}
        for key, value in ours.items():
            assert torch.equal(one.arrays[key].reshape(value.shape), value), key


@pytest.mark.parametrize(
    "name", ["dpa2_tiny_all", "dpa2_tog_fit_fparam", "dpa1_l3_nodotr", "seattenv2_l0", "sea_exclude"]
)
def test_round_trip(
    name: str,
    golden: Path,
    tmp_path: Path,
    structures: dict[str, Atoms],
    dp: Callable[..., None],
    deepmd_results: Results,
) -> None:
    """deepmd -> here -> deepmd: .pt and .dp load strictly, freeze, keep every bit and every number."""
    original = next((golden / "models" / name).glob("model.*"))
    potential = read_deepmd(original)
    write_deepmd(potential, tmp_path / "ours.pt")
    write_deepmd(potential, tmp_path / "ours.dp")
    dp("convert-backend", "ours.pt", "theirs.dp", cwd=tmp_path)  # loads strictly
    dp("convert-backend", "ours.dp", "from_dp.pth", cwd=tmp_path)
    for path in ("ours.pt", "ours.dp", "theirs.dp", "from_dp.pth"):
        same_arrays(original, tmp_path / path)
    seen = deepmd_results(["ours.pt", "from_dp.pth"], tmp_path)
    agree(potential, seen, "ours.pt", structures)
    with np.load(golden / f"{name}.npz") as reference:
        for structure in structures:
            if f"{structure}/energy" in reference.files:
                expected = float(reference[f"{structure}/energy"])
                for path in ("ours.pt", "from_dp.pth"):
                    energy = float(seen[f"{path}|{structure}|energy"])
                    assert energy == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_all_heads_in_one_file(
    golden: Path,
    tmp_path: Path,
    structures: dict[str, Atoms],
    dp: Callable[..., None],
    deepmd_results: Results,
) -> None:
    original = golden / "models" / "mt_dpa2_tiny_sharefit_case" / "model.pt.xz"
    potential = read_deepmd(original)
    write_deepmd(potential, tmp_path / "ours.pt")
    same_arrays(original, tmp_path / "ours.pt")
    dp("--pt", "freeze", "-c", ".", "-o", "mol.pth", "--head", "mol_3", cwd=_as_checkpoint_folder(tmp_path))
    seen = deepmd_results(["ours.pt@water_1", "ours.pt@mol_3", "mol.pth"], tmp_path)
    agree(potential, seen, "ours.pt@water_1", structures, potential.head_index("water_1"))
    agree(potential, seen, "ours.pt@mol_3", structures, potential.head_index("mol_3"))
    agree(potential, seen, "mol.pth", structures, potential.head_index("mol_3"))
    write_deepmd(potential, tmp_path / "metal.dp", head="metal_2")
    dp("convert-backend", "metal.dp", "metal.pth", cwd=tmp_path)
    seen = deepmd_results(["metal.pth"], tmp_path)
    agree(potential, seen, "metal.pth", structures, potential.head_index("metal_2"))


def _as_checkpoint_folder(folder: Path) -> Path:
    """`dp freeze -c FOLDER` reads the name of the newest checkpoint from a file there."""
    (folder / "checkpoint").write_text("ours.pt")
    return folder


def test_float32(golden: Path, tmp_path: Path, structures: dict[str, Atoms], deepmd_results: Results) -> None:
    original = golden / "models" / "dpa2_tog_float32" / "model.pt.xz"
    potential = read_deepmd(original)
    assert potential.dtype == torch.float32
    write_deepmd(potential, tmp_path / "ours.pt")
    same_arrays(original, tmp_path / "ours.pt")
    seen = deepmd_results(["ours.pt"], tmp_path)
    for name, atoms in structures.items():
        energy = float(potential.compute(graph_from_atoms(atoms, potential.config)).energy.detach())
        assert energy == pytest.approx(float(seen[f"ours.pt|{name}|energy"]), rel=1e-6)


def small(**changes: object) -> RepformerConfig:
    values: dict[str, object] = {
        "nsel": 60, "nlayers": 2, "g1_dim": 8, "g2_dim": 4, "attn1_hidden": 3, "attn2_hidden": 3,
        "attn1_nhead": 2, "attn2_nhead": 2, "axis_neuron": 2, "update_residual": 0.3,
    }  # fmt: skip
    return RepformerConfig(**(values | changes))  # type: ignore[arg-type]


REPINIT = {"nsel": 150, "neuron": (4, 8), "axis_neuron": 3, "tebd_dim": 3}
MADE_HERE = {
    "direct_dist": DPA2Config(repinit=RepinitConfig(**REPINIT), repformer=small(direct_dist=True)),
    "tebd_bias": DPA2Config(
        repinit=RepinitConfig(**REPINIT, tebd_input_mode="strip", type_one_side=True, resnet_dt=True),
        three_body=ThreeBodyConfig(nsel=100, cutoff=5.0),
        repformer=small(update_g1_has_grrg=False, update_h2=True, update_g2_has_attn=False),
        use_tebd_bias=True,
        env_protection=0.1,
    ),
    "res_incr": DPA2Config(
        repinit=RepinitConfig(**REPINIT, activation="silut:2.0"),
        repformer=small(update_style="res_incr", activation="silu", attn2_has_gate=True, ln_eps=1e-3),
        use_econf_tebd=True,
        smooth=False,
        add_tebd_to_repinit_out=True,
    ),
    "dpa1": DPA1Config(
        nsel=150, neuron=(4, 8), axis_neuron=2, tebd_dim=3, attn=5, attn_layer=2, normalize=False,
        scaling_factor=2.0, smooth_type_embedding=True, tebd_input_mode="strip", type_one_side=False,
    ),
    "dpa1_sharp": DPA1Config(
        nsel=150, neuron=(4, 8), axis_neuron=2, tebd_dim=3, attn=5, attn_layer=1, temperature=0.7,
        smooth_type_embedding=False, exclude_types=((0, 1),), trainable_ln=False, ln_eps=1e-3,
    ),
    "deeppot_se": DeepPotSEConfig(
        sel=(80, 80, 80, 80), neuron=(4, 8), axis_neuron=2, type_one_side=False, resnet_dt=True
    ),
}  # fmt: skip


def made_here(kind: str) -> Potential:
    """A potential with random weights, statistics and biases, so that no term is hidden at zero."""
    torch.manual_seed(sum(map(ord, kind)))
    fitting = FittingConfig(
        neuron=(10, 10, 20), activation="gelu", exclude_types=(3,) if kind == "dpa1" else ()
    )
    config = ModelConfig(
        type_map=TYPE_MAP,
        descriptor=MADE_HERE[kind],
        heads=(HeadConfig(name="made here", fitting=fitting),),
        neighbor_rule="all" if kind == "tebd_bias" else "nearest",
        pair_exclude_types=((1, 1),) if kind == "res_incr" else (),
        atom_exclude_types=(2,) if kind == "direct_dist" else (),
    )
    potential = Potential(config)
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in potential.named_buffers():
            if name.endswith("environment.std"):
                buffer.copy_(torch.rand(4, 1).expand(4, 4) * 0.1 + 0.1)
                buffer[:, 0] *= 2.0
            if name.endswith("environment.mean") and kind == "deeppot_se":
                buffer[:, 0] = 0.05
            if name.endswith("out_bias.values"):
                buffer.copy_(torch.tensor([-430.0, -13.0, -180.0, -150.0]))
    return potential


@pytest.mark.parametrize("kind", list(MADE_HERE))
def test_models_made_here(
    kind: str,
    tmp_path: Path,
    structures: dict[str, Atoms],
    dp: Callable[..., None],
    deepmd_results: Results,
) -> None:
    """Options that no golden model has; deepmd-kit agrees on models it never saw."""
    potential = made_here(kind)
    write_deepmd(potential, tmp_path / "ours.pt")
    write_deepmd(potential, tmp_path / "ours.dp")
    dp("convert-backend", "ours.dp", "ours.pth", cwd=tmp_path)
    dp("convert-backend", "ours.pt", "again.dp", cwd=tmp_path)
    same_arrays(tmp_path / "ours.pt", tmp_path / "ours.dp")
    same_arrays(tmp_path / "ours.pt", tmp_path / "again.dp")
    assert read_deepmd(tmp_path / "again.dp").config.descriptor == potential.config.descriptor
    seen = deepmd_results(["ours.pt", "ours.pth"], tmp_path)
    agree(potential, seen, "ours.pt", structures)
    agree(potential, seen, "ours.pth", structures)


def test_pair_table(
    golden: Path,
    tmp_path: Path,
    structures: dict[str, Atoms],
    dp: Callable[..., None],
    deepmd_results: Results,
) -> None:
    """A model bridged to a repulsive table at short distance, written as .dp and as .pt with its table."""
    plain = read_deepmd(golden / "models" / "dpa2_tiny_medium" / "model.pt.xz")
    grid = np.linspace(0.02, 3.0, 150)
    columns = [(k + 1.0) / grid * np.exp(-grid) * (1 - grid / 3.0) ** 3 for k in range(10)]
    coefficients, r_min, spacing = table_coefficients(np.stack([grid, *columns], axis=1), 4, 6.0)
    bridging = BridgingConfig(
        cutoff=6.0, nsel=120, switch_min=0.8, switch_max=1.6,
        n_intervals=coefficients.shape[2], r_min=r_min, spacing=spacing,
    )  # fmt: skip
    config = ModelConfig(
        type_map=plain.config.type_map,
        descriptor=plain.config.descriptor,
        heads=plain.config.heads,
        neighbor_rule="nearest",
        bridging=bridging,
    )
    potential = Potential(config)
    state = plain.state_dict() | {"bridging.coefficients": torch.from_numpy(coefficients)}
    potential.load_state_dict(state)
    write_deepmd(potential, tmp_path / "ours.pt")
    write_deepmd(potential, tmp_path / "ours.dp")
    assert (tmp_path / "ours_pair_table.txt").exists()
    dp("convert-backend", "ours.dp", "ours.pth", cwd=tmp_path)
    seen = deepmd_results(["ours.pt", "ours.pth"], tmp_path)
    agree(potential, seen, "ours.pth", structures)
    agree(potential, seen, "ours.pt", structures)
    for name in ("ours.pt", "ours.dp", "ours.pth"):
        again = read_deepmd(tmp_path / name)
        assert again.config.bridging == bridging
        assert torch.equal(again.bridging.coefficients, potential.bridging.coefficients)  # type: ignore[union-attr]
