"""Files that are written here, judged by deepmd-kit itself (marked `deepmd`)."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import DEEPPOT_SE, DPA1, small_dpa2
from ase import Atoms
from scipy.interpolate import CubicSpline

from dpa2calc.deepmd.containers import open_source
from dpa2calc.deepmd.read import read_deepmd
from dpa2calc.deepmd.write import write_deepmd
from dpa2calc.model.config import (
    BridgingConfig,
    DescriptorConfig,
    DPA2Config,
    FittingConfig,
    HeadConfig,
    ModelConfig,
    NeighborRule,
    ThreeBodyConfig,
)
from dpa2calc.model.potential import Potential
from dpa2calc.structures.graph_builder import graph_from_atoms

pytestmark = pytest.mark.deepmd
TYPE_MAP = ("O", "H", "Cu", "C")
ROUND_TRIP = ("dpa2_tiny_all", "dpa2_tog_fit_fparam", "dpa1_l3_nodotr", "seattenv2_l0", "sea_exclude")
Results = dict[str, np.ndarray]


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


# Held by some kinds of file only: second copies, empty buffers, and what the options repeat.
NOT_EVERYWHERE = ("_networks.", "compress_", "type_embd_data", "emask", "default_fparam_tensor", "inner.out_")


def same_arrays(a: Path, b: Path) -> None:
    """Two deepmd-kit files hold the same arrays bit by bit."""
    for one, two in zip(open_source(a).branches, open_source(b).branches, strict=True):
        for key, value in one.arrays.items():
            if not any(part in key for part in NOT_EVERYWHERE):
                assert torch.equal(two.arrays[key].reshape(value.shape), value), key


@pytest.mark.parametrize("name", ROUND_TRIP)
def test_round_trip(
    name: str, golden: Path, folder: Path, structures: dict[str, Atoms], judged: Results
) -> None:
    """deepmd -> here -> deepmd: .pt and .dp load strictly, freeze, keep every bit and every number."""
    original = original_file(golden, name)
    potential = read_deepmd(original)
    written = [folder / f"{name}{ending}" for ending in (".pt", ".dp", "_theirs.dp", "_from_dp.pth")]
    for path in written:
        same_arrays(original, path)
    with np.load(golden / f"{name}.npz") as reference:
        for model in (str(written[0]), str(written[3])):
            agree(potential, judged, model, structures)
            for structure in structures:
                if f"{structure}/energy" in reference.files:
                    expected = float(reference[f"{structure}/energy"])
                    energy = float(judged[f"{model}|{structure}|energy"])
                    assert energy == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_all_heads_in_one_file(
    golden: Path, folder: Path, structures: dict[str, Atoms], judged: Results
) -> None:
    original = original_file(golden, "mt_dpa2_tiny_sharefit_case")
    potential = read_deepmd(original)
    same_arrays(original, folder / "heads.pt")
    for model, head in HEAD_FILES.items():
        agree(potential, judged, str(folder / model), structures, potential.head_index(head))


def test_float32(golden: Path, folder: Path, structures: dict[str, Atoms], judged: Results) -> None:
    original = original_file(golden, "dpa2_tog_float32")
    potential = read_deepmd(original)
    assert potential.dtype == torch.float32
    same_arrays(original, folder / "float32.pt")
    for name, atoms in structures.items():
        energy = float(potential.compute(graph_from_atoms(atoms, potential.config)).energy.detach())
        assert energy == pytest.approx(float(judged[f"{folder / 'float32.pt'}|{name}|energy"]), rel=1e-6)


BROAD: dict[str, Any] = {"cutoff": 6.0, "cutoff_smooth": 0.5, "nsel": 150}  # room for all neighbours


def small(*, repinit: dict[str, Any] | None = None, **repformer: Any) -> DPA2Config:
    usual = {"cutoff": 4.0, "cutoff_smooth": 3.5, "nsel": 60, "nlayers": 2, "update_residual": 0.3}
    usual["attn2_has_gate"] = False
    return small_dpa2(three_body=None, repinit=BROAD | (repinit or {}), **(usual | repformer))


MADE_HERE: dict[str, DescriptorConfig] = {
    "direct_dist": small(direct_dist=True),
    "tebd_bias": dataclasses.replace(
        small(
            repinit={"tebd_input_mode": "strip", "type_one_side": True, "resnet_dt": True},
            update_g1_has_grrg=False, update_h2=True, update_g2_has_attn=False,
        ),
        three_body=ThreeBodyConfig(nsel=100, cutoff=5.0),
        use_tebd_bias=True,
        env_protection=0.1,
    ),
    "res_incr": dataclasses.replace(
        small(
            repinit={"activation": "silut:2.0"},
            update_style="res_incr", activation="silu", attn2_has_gate=True, ln_eps=1e-3,
        ),
        use_econf_tebd=True,
        smooth=False,
        add_tebd_to_repinit_out=True,
    ),
    "dpa1": dataclasses.replace(
        DPA1, **BROAD, normalize=False, scaling_factor=2.0, tebd_input_mode="strip", type_one_side=False
    ),
    "dpa1_sharp": dataclasses.replace(
        DPA1, **BROAD, attn_layer=1, temperature=0.7, smooth_type_embedding=False, exclude_types=((0, 1),),
        trainable_ln=False, ln_eps=1e-3,
    ),
    "deeppot_se": dataclasses.replace(
        DEEPPOT_SE, cutoff=6.0, cutoff_smooth=0.5, sel=(80, 80, 80, 80), type_one_side=False, resnet_dt=True
    ),
}  # fmt: skip


def made_here(kind: str) -> Potential:
    """A potential with random weights, statistics and biases, so that no term is hidden at zero."""
    torch.manual_seed(sum(map(ord, kind)))
    head = HeadConfig(name="made here", fitting=FittingConfig(neuron=(10, 10, 20), activation="gelu"))
    rule: NeighborRule = "all" if kind == "tebd_bias" else "nearest"
    config = ModelConfig(
        type_map=TYPE_MAP,
        descriptor=MADE_HERE[kind],
        heads=(head,),
        neighbor_rule=rule,
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
def test_models_made_here(kind: str, folder: Path, structures: dict[str, Atoms], judged: Results) -> None:
    """Options that no golden model has; deepmd-kit agrees on models it never saw."""
    potential = made_here(kind)
    same_arrays(folder / f"{kind}.pt", folder / f"{kind}.dp")
    same_arrays(folder / f"{kind}.pt", folder / f"{kind}_theirs.dp")
    assert read_deepmd(folder / f"{kind}_theirs.dp").config.descriptor == potential.config.descriptor
    agree(potential, judged, str(folder / f"{kind}.pt"), structures)
    agree(potential, judged, str(folder / f"{kind}_from_dp.pth"), structures)


def test_pair_table(golden: Path, folder: Path, structures: dict[str, Atoms], judged: Results) -> None:
    """A model bridged to a repulsive table at short distance, written as .dp and as .pt with its table."""
    potential = with_pair_table(golden)
    assert (folder / "bridged_pair_table.txt").exists()
    for name in ("bridged.pt", "bridged_from_dp.pth"):
        agree(potential, judged, str(folder / name), structures)
    for name in ("bridged.pt", "bridged.dp", "bridged_from_dp.pth", "bridged_theirs.dp"):
        again = read_deepmd(folder / name)
        assert again.config.bridging == potential.config.bridging
        assert torch.equal(again.bridging.coefficients, potential.bridging.coefficients)  # type: ignore[union-attr]


def with_pair_table(golden: Path) -> Potential:
    """A golden model with a repulsive pair potential below 1.6 Å."""
    plain = read_deepmd(original_file(golden, "dpa2_tiny_medium"))
    r_min = spacing = 0.02
    grid = spacing * np.arange(1, 301)  # up to the cutoff; zero from 3 Å on
    shape = np.exp(-grid) / grid * (1 - grid / 3.0).clip(min=0.0) ** 3
    powers = spacing ** np.array([[3], [2], [1], [0]])  # the cubic pieces in units of the spacing
    pieces = (CubicSpline(grid, shape, bc_type="clamped").c * powers).T
    coefficients = np.empty((4, 4, *pieces.shape))
    for k, (a, b) in enumerate(itertools.combinations_with_replacement(range(4), 2)):
        coefficients[a, b] = coefficients[b, a] = (k + 1.0) * pieces
    bridging = BridgingConfig(
        cutoff=6.0, nsel=120, switch_min=0.8, switch_max=1.6,
        n_intervals=coefficients.shape[2], r_min=r_min, spacing=spacing,
    )  # fmt: skip
    potential = Potential(dataclasses.replace(plain.config, bridging=bridging))
    potential.load_state_dict(plain.state_dict() | {"bridging.coefficients": torch.from_numpy(coefficients)})
    return potential


def original_file(golden: Path, name: str) -> Path:
    """The model file of a golden set."""
    return next((golden / "models" / name).glob("model.*"))


HEAD_FILES = {
    "heads.pt@water_1": "water_1",
    "heads.pt@mol_3": "mol_3",
    "frozen_head.pth": "mol_3",
    "metal_from_dp.pth": "metal_2",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all files of this module lie."""
    return tmp_path_factory.mktemp("deepmd")


@pytest.fixture(scope="module")
def judged(folder: Path, golden: Path, deepmd_jobs: Callable[..., Results]) -> Results:
    """Write every model, and let deepmd-kit convert and evaluate them all in one process."""
    models = {name: read_deepmd(original_file(golden, name)) for name in ROUND_TRIP}
    models |= {kind: made_here(kind) for kind in MADE_HERE}
    models["bridged"] = with_pair_table(golden)
    jobs: list[list[str | None]] = []
    for name, potential in models.items():
        at = str(folder / name)
        write_deepmd(potential, f"{at}.pt")
        write_deepmd(potential, f"{at}.dp")
        jobs.append(["convert", f"{at}.dp", f"{at}_from_dp.pth"])
        jobs += [["evaluate", f"{at}.pt"], ["evaluate", f"{at}_from_dp.pth"]]
        jobs.append(["convert", f"{at}.pt", f"{at}_theirs.dp"])  # this loads strictly
    write_deepmd(read_deepmd(original_file(golden, "dpa2_tog_float32")), folder / "float32.pt")
    heads = read_deepmd(original_file(golden, "mt_dpa2_tiny_sharefit_case"))
    write_deepmd(heads, folder / "heads.pt")
    write_deepmd(heads, folder / "metal.dp", head="metal_2")
    jobs.append(["evaluate", str(folder / "float32.pt")])
    jobs.append(["freeze", str(folder / "heads.pt"), str(folder / "frozen_head.pth"), "mol_3"])
    jobs.append(["convert", str(folder / "metal.dp"), str(folder / "metal_from_dp.pth")])
    jobs += [["evaluate", str(folder / model)] for model in HEAD_FILES]
    results = deepmd_jobs(jobs, folder)
    errors = [str(value) for key, value in results.items() if key.startswith("error|")]
    assert not errors, "\n".join(errors)
    return results
