"""Stresses are compared with the energies of strained copies: exact ones fit, offsets and units are found."""

import dataclasses
import logging

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa
from scipy.spatial.transform import Rotation

from dpa2calc.training import Dataset, FinetuneConfig, TrainConfig, check_dataset, clean, finetune, train
from dpa2calc.training.config.run_file import load_sets, read_run_file
from dpa2calc.training.data.checks.stress_misfit import stress_misfits


def strained(n: int = 8, *, turned: bool = False, group: str = "") -> Dataset:
    """Rattled argon in `n` cells of strains up to 2 %, the same fractional coordinates but for 0.005 Å."""
    rng = np.random.default_rng(3)
    start = bulk("Ar", "fcc", a=4.05, cubic=True) * (2, 1, 1)
    start.rattle(0.05, seed=1)
    frames = []
    for i in range(n):
        atoms = start.copy()
        deformation = np.eye(3) + rng.uniform(-0.01, 0.01, (3, 3))
        if turned:
            deformation = deformation @ Rotation.random(random_state=i).as_matrix()
        atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
        atoms.positions += rng.uniform(-0.005, 0.005, (len(atoms), 3))
        atoms.wrap()
        atoms.calc = LennardJones(sigma=2.6, epsilon=0.05, rc=4.5, smooth=True)
        atoms.info["group"] = group
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **labels, stress=atoms.get_stress())
        frames.append(atoms)
    return Dataset.from_atoms(frames, name="argon")


def relabelled(data: Dataset, *, offset: float = 0.0, factor: float = 1.0) -> Dataset:
    """Stresses times a factor, plus an isotropic offset in GPa."""
    frames = []
    for frame in data:
        assert frame.virial is not None
        virial = factor * frame.virial - offset * GPa * frame.volume * np.eye(3)
        frames.append(dataclasses.replace(frame, virial=virial))
    return dataclasses.replace(data, frames=tuple(frames))


@pytest.mark.parametrize("turned", [False, True])
def test_exact_stresses_fit(turned):
    assert stress_misfits(strained(turned=turned)) == ()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("offset", [2.5, -1.5])
def test_pulay_stress_is_measured(turned, offset):
    (found,) = stress_misfits(relabelled(strained(turned=turned), offset=offset))
    assert found.offset[0] == pytest.approx(offset, abs=0.05)
    assert found.offset[1] < 0.1 * found.typical and found.n_pairs == 28
    assert f"without an offset of {found.offset[0]:+.2f} GPa (Pulay stress?)" in str(found)


@pytest.mark.parametrize("factor", [1e-3, -1.0, 10.0])
def test_another_unit_or_sign_is_measured(factor):
    (found,) = stress_misfits(relabelled(strained(), factor=factor))
    assert found.factor[0] == pytest.approx(1.0 / factor, rel=0.03)
    assert f"{found.factor[0]:.3g} times as large (another unit?)" in str(found)


def test_noise_is_neither():
    noise = np.random.default_rng(0).normal(0.0, 4.0, (8, 3, 3))
    frames = tuple(dataclasses.replace(f, virial=v + v.T) for f, v in zip(strained(), noise))
    (found,) = stress_misfits(Dataset(frames))
    assert str(found).endswith("neither an offset nor a factor mends it")


@pytest.mark.parametrize("label", ["energy", "forces", "positions"])
def test_a_frame_that_is_not_a_number_is_passed_over(label):
    data = relabelled(strained(), offset=2.5)
    broken = dataclasses.replace(data[3], **{label: getattr(data[3], label) * np.nan})
    (found,) = stress_misfits(Dataset((*data.frames[:3], broken, *data.frames[4:])))
    assert found.n_pairs == 21 and found.offset[0] == pytest.approx(2.5, abs=0.05)


def test_frames_without_strained_copies_are_not_judged(lj_data):
    assert stress_misfits(relabelled(lj_data(20), factor=1e3)) == ()
    assert stress_misfits(relabelled(strained(3), factor=1e3)) == ()  # three pairs say too little


def test_groups_of_one_frame_are_judged_together():
    """Sets that name a group for each strain hold no two copies in one group."""
    data = relabelled(strained(), offset=2.5)
    named = tuple(dataclasses.replace(f, group=f"strain {i}") for i, f in enumerate(data))
    (found,) = stress_misfits(Dataset(named))
    assert len(found.groups) == 8 and str(found).startswith("8 groups: energies of 28 pairs")
    assert check_dataset(Dataset(named)).frames("stress misfit") == list(range(8))
    assert stress_misfits(relabelled(Dataset(named), offset=-2.5)) == ()


def test_only_the_group_that_misfits_is_named():
    good, bad = strained(group="good"), relabelled(strained(group="bad"), offset=3.0)
    report = check_dataset(Dataset(good.frames + bad.frames, "both"))
    assert report.frames("stress misfit") == list(range(8, 16))
    assert "8 x stress misfit" in report.summary() and "group bad: energies of 28 pairs" in report.summary()
    assert not report.fatal


def test_dropping_a_misfit_keeps_energies_and_forces():
    data = relabelled(strained(), offset=3.0)
    kept, dropped = clean(data, drop=("stress misfit",), frames=(2,))
    assert sorted((f.frame, f.kind) for f in dropped) == [
        (i, "named" if i == 2 else "stress misfit") for i in range(8)
    ]
    assert kept.labels() == {"energy": 7, "forces": 7, "stress": 0} and data.labels()["stress"] == 8
    assert [f.energy for f in kept] == [f.energy for i, f in enumerate(data) if i != 2]


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("learned", [False, True])
def test_training_from_python_warns_where_virials_count(tiny_model, tmp_path, caplog, tuned, learned):
    bad, good = relabelled(strained(group="bad"), offset=3.0), strained(group="good")
    data = Dataset(bad.frames + good.frames, "A")
    options = {"steps": 1, "batch_atoms": 16, "virial_prefactor_start": 0.0}
    options["virial_prefactor_limit"] = 1.0 if learned else 0.0
    if tuned:
        train(tiny_model(), good, TrainConfig(steps=1), output=tmp_path / "start", progress=False)
        caplog.clear()
        start = tmp_path / "start" / "last.safetensors"
        finetune(start, data, FinetuneConfig(**options), output=tmp_path / "run", progress=False)
    else:
        train(tiny_model(), data, TrainConfig(**options), output=tmp_path / "run", progress=False)
    warned = [r.getMessage() for r in caplog.records if "strained copies" in r.getMessage()]
    assert len(warned) == learned
    if learned:
        assert warned[0].startswith("A: group bad: ") and "clean(data, drop=('stress misfit',))" in warned[0]


def test_a_training_file_drops_them(tmp_path, caplog):
    from ase.io import write

    frames = relabelled(strained(), offset=3.0)
    structures = []
    for frame in frames:
        atoms = frame.atoms()
        labels = {"energy": frame.energy, "forces": frame.forces, "stress": frame.stress}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        structures.append(atoms)
    write(tmp_path / "argon.xyz", structures, format="extxyz")
    text = 'output = "run"\n[sets.A]\ntrain = ["argon.xyz"]\ndrop = ["stress misfit"]\n'
    (tmp_path / "run.toml").write_text(text)
    with caplog.at_level(logging.WARNING):
        training, _ = load_sets(read_run_file(tmp_path / "run.toml", TrainConfig))
    assert training["A"].train.labels() == {"energy": 8, "forces": 8, "stress": 0}
    assert "A: left out 8 stresses: stress misfit" in caplog.text
