"""Compressed models: equal to the plain ones, and exact derivatives of their own energy."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.stress import voigt_6_to_full_3x3_stress
from slopes import slope

pytest.importorskip("numba")

from dpa2calc import DPA2Calculator
from dpa2calc.cli.main import main
from dpa2calc.description import describe
from dpa2calc.engine.streaming import why_not_streamed
from dpa2calc.errors import ConfigError, MissingDependencyError, StructureError
from dpa2calc.kernels import tables
from dpa2calc.kernels.tables.table import build_table, embedding_jets
from dpa2calc.model.compression import compress, decompress
from dpa2calc.model.config import (
    DeepPotSEConfig,
    DPA1Config,
    DPA2Config,
    FittingConfig,
    HeadConfig,
    ModelConfig,
    RepformerConfig,
    RepinitConfig,
)
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import checkpoint_info, load_checkpoint, save_checkpoint
from dpa2calc.structures.graph_builder import graph_from_atoms

SMALL = dict(cutoff=4.5, neuron=(3, 6, 12), axis_neuron=3)
CONCAT = DPA1Config(attn_layer=0, nsel=90, tebd_dim=4, **SMALL)
DPA2 = DPA2Config(
    repinit=RepinitConfig(cutoff_smooth=0.5, nsel=90, tebd_dim=4, **SMALL),
    repformer=RepformerConfig(
        cutoff=3.0, cutoff_smooth=1.0, nsel=40, nlayers=2, g1_dim=8, g2_dim=4, axis_neuron=2,
        update_g1_has_attn=False, update_g2_has_attn=False, update_g2_has_g1g1=False,
    ),
)  # fmt: skip


def variant(config: DPA1Config, **changes: object) -> DPA1Config:
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


DESCRIPTORS = {
    "concat, one side": CONCAT,
    "concat, both sides": variant(CONCAT, type_one_side=False),
    "strip, smooth": variant(CONCAT, tebd_input_mode="strip", type_one_side=False),
    "strip, not smooth": variant(CONCAT, tebd_input_mode="strip", smooth_type_embedding=False),
    "idt, excluded, protected": variant(
        CONCAT, resnet_dt=True, exclude_types=((0, 2),), env_protection=0.01, activation="gelu"
    ),
    "no type embedding at the end": variant(CONCAT, concat_output_tebd=False),
    "deeppot-se": DeepPotSEConfig(sel=(50, 50, 50), **SMALL),
    "deeppot-se, both sides": DeepPotSEConfig(sel=(50, 50, 50), type_one_side=False, **SMALL),
}


def potential(descriptor: object, **changes: object) -> Potential:
    """Random weights, and statistics that are not the defaults."""
    torch.manual_seed(3)
    head = HeadConfig(fitting=FittingConfig(neuron=(10, 10)))
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=descriptor, heads=(head,), **changes)  # type: ignore[arg-type]
    made = Potential(config).requires_grad_(False)
    made.heads[0].out_bias.values.copy_(torch.tensor([-3.0, -1.0, -2.0]))
    body = made.descriptor if isinstance(descriptor, DeepPotSEConfig) else made.descriptor.repinit
    body.environment.std.copy_(torch.tensor([[0.15, 0.1, 0.1, 0.1], [0.2, 0.12, 0.12, 0.12], [0.1] * 4]))
    return made


def structure() -> Atoms:
    """Water beside a metal slab, three elements, a cell not much longer than the cutoff."""
    slab = bulk("Cu", cubic=True).repeat((2, 1, 1))
    slab.cell[2, 2] += 5.0
    water = molecule("H2O")
    water.translate([2.0, 1.0, 6.0] - water.positions.mean(axis=0))
    atoms = slab + water
    atoms.rattle(0.1, seed=3)
    return atoms


STRUCTURES = {
    "slab and molecule": structure(),
    "molecule": molecule("H2O"),
    "one atom": Atoms("O"),
    "cell shorter than the cutoff": bulk("Cu"),
    "wire, skewed": Atoms("OCu", [[0, 0, 0], [1.9, 0.3, 30.0]], cell=[2.4, 0, 0], pbc=[True, False, False]),
}


def compare(plain: Potential, atoms: Atoms, *, tolerance: float = 1e-7) -> None:
    results = []
    for wanted in (False, True):
        calculator = DPA2Calculator(plain, dtype="float64", compress=wanted)
        results.append(calculator.evaluate([atoms])[0])
        copy = atoms.copy()
        copy.calc = calculator
        copy.get_forces()
        results.append(calculator.results)
        assert bool(calculator._streams) == (wanted and why_not_streamed(compress(plain)[0], 0) is None)
    for other in results[1:]:
        for key in ("energy", "energies", "forces", "stress"):
            if key in results[0]:
                np.testing.assert_allclose(other[key], results[0][key], atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_equals_the_plain_model(name):
    compare(potential(DESCRIPTORS[name]), STRUCTURES["slab and molecule"])


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("descriptor", ["concat, one side", "deeppot-se"])
def test_equals_the_plain_model_for_any_cell(descriptor, name):
    with np.errstate(all="ignore"):
        compare(potential(DESCRIPTORS[descriptor]), STRUCTURES[name])


@pytest.mark.parametrize("mode", ["concat", "strip"])
def test_repinit_of_dpa2_equals_the_plain_model(mode):
    repinit = dataclasses.replace(DPA2.repinit, tebd_input_mode=mode)
    compare(potential(dataclasses.replace(DPA2, repinit=repinit)), STRUCTURES["slab and molecule"])


@pytest.mark.parametrize("rule", ["nearest", "all"])
@pytest.mark.parametrize("shifted", ["deeppot-se", "strip, smooth"])
def test_padding_counts_where_the_mean_is_not_zero(shifted, rule):
    descriptor = dataclasses.replace(DESCRIPTORS[shifted], set_davg_zero=False)  # type: ignore[type-var]
    plain = potential(descriptor, neighbor_rule=rule)
    body = plain.descriptor if shifted == "deeppot-se" else plain.descriptor.repinit
    body.environment.mean[:, 0] = torch.tensor([0.02, 0.05, 0.01])
    compare(plain, STRUCTURES["slab and molecule"])


def test_the_nearest_neighbours_are_kept_where_there_are_too_many():
    plain = potential(variant(CONCAT, nsel=20), neighbor_rule="nearest")
    compare(plain, STRUCTURES["slab and molecule"])


def test_excluded_pairs_and_silent_atoms():
    plain = potential(CONCAT, pair_exclude_types=((0, 1),), atom_exclude_types=(2,))
    compare(plain, STRUCTURES["slab and molecule"])


@pytest.mark.parametrize("name", ["concat, both sides", "strip, smooth", "deeppot-se"])
def test_forces_and_stress_are_derivatives_of_the_tabulated_energy(name):
    atoms = structure()
    calc = DPA2Calculator(compress(potential(DESCRIPTORS[name]), tolerance=1e-3)[0], dtype="float64")
    forces, stress = calc.get_forces(atoms), voigt_6_to_full_3x3_stress(calc.get_stress(atoms))
    rng = np.random.default_rng(1)
    for _ in range(3):
        move = rng.normal(size=(len(atoms), 3))
        expected = -slope(calc.get_potential_energy, atoms, move=move)
        assert (forces * move).sum() == pytest.approx(expected, abs=1e-6)
    strain = rng.normal(size=(3, 3))
    strain += strain.T
    expected = slope(calc.get_potential_energy, atoms, strain=strain) / atoms.get_volume()
    assert (stress * strain).sum() == pytest.approx(expected, abs=1e-7)


def test_symmetries_and_order_of_atoms():
    atoms = structure()
    calculator = DPA2Calculator(potential(CONCAT), dtype="float64", compress=True)
    atoms.calc = calculator
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    order = np.random.default_rng(0).permutation(len(atoms))
    turned = atoms[order]
    turned.translate([7.0, -20.0, 3.0])
    turned.rotate(31.0, (1, 2, 3), rotate_cell=True)
    turned.calc = calculator
    assert turned.get_potential_energy() == pytest.approx(energy, abs=1e-11)
    turned_back = turned.copy()
    turned_back.arrays["f"] = turned.get_forces()
    back = Atoms("H" * len(atoms), positions=turned.get_forces())
    back.rotate(-31.0, (1, 2, 3))
    np.testing.assert_allclose(back.positions, forces[order], atol=1e-11)
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-12)
    doubled = atoms.repeat((1, 2, 1))
    doubled.calc = calculator
    assert doubled.get_potential_energy() == pytest.approx(2 * energy, abs=1e-10)


def test_results_do_not_depend_on_the_skin_or_the_number_of_threads():
    atoms, rng = structure(), np.random.default_rng(0)
    calculators = [
        DPA2Calculator(potential(CONCAT), dtype="float64", compress=True, skin=s) for s in (0.0, 1.0)
    ]
    before = torch.get_num_threads()
    try:
        for step in range(4):
            atoms.positions += rng.normal(0.0, 0.05, (len(atoms), 3))
            atoms.set_cell(atoms.cell * (1.0 + 0.002 * step), scale_atoms=True)
            found = []
            for threads, calculator in zip((3, 1), calculators):
                torch.set_num_threads(threads)
                atoms.calc = calculator
                found.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))
            for a, b in zip(*found):
                np.testing.assert_allclose(a, b, atol=1e-12)
    finally:
        torch.set_num_threads(before)
    searches = [calculator._streams[0].pairs.n_searches for calculator in calculators]
    assert searches[0] == 4 and searches[1] < 4


def test_float32_agrees_with_float64():
    forces = []
    for dtype in ("float32", "float64"):
        atoms = structure()
        atoms.calc = DPA2Calculator(potential(CONCAT), dtype=dtype, compress=True)
        forces.append(atoms.get_forces())
    np.testing.assert_allclose(forces[0], forces[1], atol=2e-6 * np.abs(forces[1]).max())


def test_stresses_of_atoms_add_up_to_the_stress():
    atoms = structure()
    atoms.calc = DPA2Calculator(potential(CONCAT), dtype="float64", compress=True)
    np.testing.assert_allclose(atoms.get_stresses().sum(axis=0), atoms.get_stress(), atol=1e-12)


def test_the_report_tells_the_error_and_the_tolerance_sets_it():
    plain = potential(CONCAT)
    coarse, fine = (compress(plain, tolerance=t)[1] for t in (1e-5, 1e-9))
    assert fine.slope_max < 1e-8 < 1e-7 < coarse.slope_max
    assert fine.n_nodes > coarse.n_nodes and fine.megabytes > coarse.megabytes
    assert f"{fine.n_nodes} nodes" in fine.summary() and "0.1 to 4.5 Å" in fine.summary()
    # An independent look between the nodes, from bonds to the cutoff.
    block = compress(plain, tolerance=1e-5)[0].descriptor.repinit
    s = torch.linspace(0.0, 9.0, 301, dtype=torch.float64)
    value, slope = block.embedding.tabulated.table.evaluate(s)
    tebd = plain.descriptor.type_embedding()
    for line in range(3):
        x = s.clone().requires_grad_()
        g = plain.descriptor.repinit.embedding(x, torch.tensor(line), tebd, None)
        np.testing.assert_allclose(value[line], g.detach(), atol=1.5 * coarse.value_max)
        (expected,) = torch.autograd.grad(g[:, 5].sum(), x)
        np.testing.assert_allclose(slope[line, :, 5], expected, atol=1.5 * coarse.slope_max)


def test_kinks_cannot_be_tabulated():
    net = potential(variant(CONCAT, activation="relu")).descriptor.repinit.embedding.net
    jets = embedding_jets(net.net, torch.zeros(1, 4, dtype=torch.float64))
    with pytest.raises(ConfigError, match=r"smooth activations"):
        build_table(jets, low=0.0, physical=10.0, high=20.0, tolerance=1e-9)


def test_checkpoints_remember_and_calculators_follow(tmp_path):
    plain, atoms = potential(CONCAT), structure()
    fast, _ = compress(plain)
    path = save_checkpoint(fast, tmp_path / "student.safetensors")
    assert checkpoint_info(path).compressed and load_checkpoint(path).prefers_compression
    assert load_checkpoint(path).compression is None  # tables are made when they are needed
    assert "compressed" in describe(load_checkpoint(path), "student")
    assert not checkpoint_info(save_checkpoint(plain, tmp_path / "plain.safetensors")).compressed
    for choice, expected in ((None, True), (False, False), (True, True)):
        calculator = DPA2Calculator(path, compress=choice)
        assert (calculator._members[0].potential.compression is not None) == expected
        assert bool(calculator._streams) == expected
        assert calculator.parameters.get("compressed", False) == expected
    atoms.calc = DPA2Calculator(path, dtype="float64")
    forces = atoms.get_forces()
    again = pickle.loads(pickle.dumps(atoms.calc))
    assert again._streams
    copy = atoms.copy()
    copy.calc = again
    np.testing.assert_array_equal(copy.get_forces(), forces)


def test_errors(monkeypatch):
    with pytest.raises(ConfigError, match=r"2 attention layers.*dpa1-l0"):
        DPA2Calculator(potential(variant(CONCAT, attn_layer=2)), compress=True)
    with pytest.raises(ConfigError, match=r"tolerance = 0"):
        compress(potential(CONCAT), tolerance=0.0)
    atoms = structure()
    atoms.calc = DPA2Calculator(potential(CONCAT), compress=True)
    atoms.positions[-1] = atoms.positions[-2] + [0.05, 0, 0]
    with pytest.raises(StructureError, match=r"atoms 9 and 10 are 0.05 Å apart, closer than the tables"):
        atoms.get_forces()
    atoms.positions[-1] = atoms.positions[-2] + [0.03, 0, 0]
    with pytest.raises(StructureError, match=r"closer than the tables.*compress=False"):
        fast = atoms.calc._members[0].potential
        fast.compute(graph_from_atoms(atoms, fast.config))
    atoms.positions[-1] = atoms.positions[-2]
    with pytest.raises(StructureError, match=r"the same atom twice"):
        atoms.get_forces()
    atoms.positions[-1] += [0.2, 0, 0]
    with pytest.warns(UserWarning, match=r"atoms 9 \(H\) and 10 \(H\) are only 0.200 Å apart"):
        atoms.get_forces()
    atoms.positions[0] = np.nan
    with pytest.raises(StructureError, match="not finite"):
        atoms.get_forces()
    monkeypatch.setattr(tables.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install.*numba"):
        compress(potential(CONCAT))


def test_without_numba_a_student_is_evaluated_plainly_with_a_warning(monkeypatch):
    fast, _ = compress(potential(CONCAT))
    decompress(fast)
    monkeypatch.setattr(tables.importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match=r"need Numba.*several times slower"):
        calculator = DPA2Calculator(fast)
    assert calculator._members[0].potential.compression is None


def test_the_verb_reports_and_writes_a_file_that_opens_compressed(tmp_path, capsys):
    source = save_checkpoint(potential(CONCAT), tmp_path / "plain.safetensors")
    target = tmp_path / "student.safetensors"
    assert main(["compress", str(source), str(target)]) == 0
    assert "error of its slope" in capsys.readouterr().out
    assert checkpoint_info(target).compressed
    assert main(["describe", str(target)]) == 0
    assert "compressed  by the calculator" in capsys.readouterr().out
    assert main(["compress", str(source), str(tmp_path / "student.pt")]) == 1
    assert "must end in .safetensors" in capsys.readouterr().err
