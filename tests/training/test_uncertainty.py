"""Measuring the uncertainty of trained heads: what is used, what training leaves behind, and errors."""

import dataclasses
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.engine.head_ranking import HeadFit, by_doubt, rank_heads
from dpa2calc.errors import CheckpointError, DataError, ElementError, StructureError
from dpa2calc.files.results import ModelDoubt
from dpa2calc.store.checkpoint import checkpoint_info, load_checkpoint, one_head, save_checkpoint
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.sets import TrainingSet
from dpa2calc.training.fit.run import train
from dpa2calc.training.fit.setup import new_potential
from dpa2calc.training.uncertainty import add_uncertainty

RUN = TrainConfig(steps=40, batch_atoms=16, validate_every=20, checkpoint_every=100, statistics_frames=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def trained(tiny_model, lj_data, folder):
    """A run with its result; made once."""
    return train(
        tiny_model(), lj_data(30), RUN, output=folder, validation=lj_data(12, seed=9), progress=False
    )


def test_training_leaves_the_uncertainty_in_its_model(trained, lj_data):
    """Of the frames that were trained on, scaled by those that were not; the same from a file."""
    path = trained.output / "model.safetensors"
    facts = checkpoint_info(path).uncertainty["A"]
    assert (facts.frames, facts.atoms, facts.calibrated_on, facts.held_out) == (30, 120, 12, True)
    calc = DPA2Calculator(path, device="cpu")
    data = lj_data(40, seed=17)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an atom may lie beyond so few frames
        results = calc.evaluate([frame.atoms() for frame in data], forces_std=True)
    errors = np.array([r["energy"] - frame.energy for r, frame in zip(results, data)])
    deviations = np.array([r["energy_std"] for r in results])
    assert 0.3 < np.sqrt(np.mean(errors**2) / np.mean(deviations**2)) < 3
    wrong = np.concatenate([r["forces"] - frame.forces for r, frame in zip(results, data)])
    spread = np.concatenate([r["forces_std"] for r in results])
    assert 0.3 < np.sqrt(np.mean(wrong**2) / np.mean(spread**2)) < 3
    assert facts.force_error == pytest.approx(np.sqrt(np.mean(wrong**2)), rel=0.5)


def test_a_crystal_far_from_the_frames_is_known_less(trained):
    calc = DPA2Calculator(trained.output / "model.safetensors", device="cpu")
    near, far = (bulk("Ar", "fcc", a=a, cubic=True) for a in (4.4, 3.4))
    with pytest.warns(UserWarning, match=r"atom \d \(Ar\) of Ar4 is far from what head 'A' was trained on"):
        known, unknown = calc.evaluate([near, far])
    assert unknown["energies_std"].max() > 5 * known["energies_std"].max()


def test_the_same_call_gives_the_same_numbers(trained, lj_data):
    potential = load_checkpoint(trained.output / "model.safetensors")
    before = potential.rigidity(0)
    sets = {"A": TrainingSet(lj_data(30), lj_data(12, seed=9))}
    add_uncertainty(potential, sets)
    after = potential.rigidity(0)
    assert after is not before and after.facts.frames == before.facts.frames
    assert after.facts.scale == pytest.approx(before.facts.scale, rel=1e-4)
    np.testing.assert_allclose(after.factor, before.factor, rtol=1e-3, atol=1e-3 * float(after.factor.max()))


def test_weights_that_are_trained_forget_it(trained, lj_data, tmp_path):
    given = load_checkpoint(trained.output / "model.safetensors")
    assert given.rigidity(0) is not None
    config = dataclasses.replace(RUN, time_limit=1e-9)
    result = train(given, lj_data(8), config, output=tmp_path / "again", progress=False)
    assert not result.finished and result.potential.rigidity(0) is None
    assert given.rigidity(0) is not None


def test_without_frames_held_out_the_scale_is_said_to_be_of_training_frames(tiny_model, lj_data):
    potential = new_potential(tiny_model(), seed=1)
    facts = add_uncertainty(potential, {"A": lj_data(5)})["A"]
    assert not facts.held_out and facts.calibrated_on == 5
    assert str(facts) == "from 20 atoms of 5 frames, scale from 5 training frames"


def test_files_and_single_heads_keep_it(tiny_model, lj_data, tmp_path):
    potential = new_potential(tiny_model(("A", "B")), seed=1)
    add_uncertainty(potential, {"B": lj_data(5, name="B")})
    again = load_checkpoint(save_checkpoint(potential, tmp_path / "two.safetensors"))
    for kept in (again.rigidity(1), one_head(again, "B").rigidity(0)):
        assert kept.factor.equal(potential.rigidity(1).factor) and kept.facts == potential.rigidity(1).facts
    assert again.rigidity(0) is None and one_head(again, "A").rigidity(0) is None


def test_a_file_whose_arrays_do_not_fit(tiny_model, lj_data, tmp_path):
    potential = new_potential(tiny_model(), seed=1)
    add_uncertainty(potential, {"A": lj_data(5)})
    potential.rigidity(0).limits = potential.rigidity(0).limits[:1]
    path = save_checkpoint(potential, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match=r"the uncertainties in .*odd.safetensors do not fit its heads"):
        load_checkpoint(path)


def test_frames_without_energies(tiny_model, lj_data):
    data = lj_data(3)
    forces = Dataset(tuple(dataclasses.replace(frame, energy=None) for frame in data), name="A")
    with pytest.raises(DataError, match="head 'A': no frame has an energy"):
        add_uncertainty(new_potential(tiny_model(), seed=1), {"A": forces})


def test_heads_are_ranked_by_what_they_know_of_a_structure(tiny_model, lj_data):
    """The head that saw such crystals comes before one that saw others, and one that was never measured."""
    config = tiny_model(("far", "near", "unknown", "neon"))
    elements = (("Ar",), ("Ar",), ("Ar",), ("Ne",))
    heads = [dataclasses.replace(head, elements=own) for head, own in zip(config.heads, elements)]
    potential = new_potential(config.with_heads(tuple(heads)), seed=1)
    near = lj_data(12, name="near")
    stretched = [dataclasses.replace(f, positions=2 * f.positions, cell=2 * f.cell) for f in near]
    add_uncertainty(potential, {"near": near, "far": Dataset(tuple(stretched), name="far")})
    fits = rank_heads(potential, near[0].atoms())
    assert [fit.head for fit in fits] == ["near", "far", "unknown"]
    assert fits[0].beyond <= 1.1 and fits[1].beyond > 3 and fits[2].beyond is None
    assert "do not rely on it" in fits[1].verdict and "never measured" in fits[2].summary()
    with pytest.raises(ElementError, match=r"no head of .* saw Ar Ne together \(the nearest lacks Ne\)"):
        rank_heads(potential, bulk("NeAr", "rocksalt", a=4.4))
    with pytest.raises(StructureError, match="atoms 0 and 1 are 0 Å apart: the same atom twice"):
        rank_heads(potential, Atoms("Ar2", np.zeros((2, 3))))


@pytest.mark.parametrize(
    "beyond, error, said",
    [
        (0.4, 0.43, "like its training set, which it knows roughly: fine-tune it first"),
        (2.0, 0.43, "at the edge of its training set, which it knows roughly: fine-tune it first"),
        (4.0, 0.43, "far from its training set: do not rely on it"),
        (0.4, 0.10, "like its training set"),
    ],
)
def test_a_head_that_never_learned_its_set_well_is_no_more_than_a_start(beyond, error, said):
    facts = {"head": "A", "beyond": beyond, "force_error": error, "typical_force": 1.17}
    assert HeadFit(functional="", description="", **facts).summary().endswith(f": {said}")
    doubt = ModelDoubt(energies_std=0.1, element="Ni", **facts)
    assert doubt.summary().endswith(f"{beyond:.2g} times its range: {said}")


def test_large_numbers_about_a_model_have_no_exponent():
    doubt = ModelDoubt(
        head="A", energies_std=0.347, element="H", beyond=123.0, share_beyond=1.0, structures=2
    )
    assert "± 350 meV, 120 times its range (100 % of the atoms beyond theirs" in doubt.summary()
    assert "0.35 meV, 0.012 times its range:" in ModelDoubt(
        head="A", energies_std=3.47e-4, beyond=0.0123
    ).summary().replace("± ", "")


def test_of_heads_with_the_same_verdict_the_one_that_knows_better_comes_first():
    rows = {
        "far": (9.0, 0.01),
        "edge": (2.0, 0.1),
        "wide": (0.1, 5.0),
        "sure": (0.9, 0.2),
        "further": (90.0, 0.0),
    }
    fits = [
        HeadFit(head=n, functional="", description="", beyond=b, energy_std=e) for n, (b, e) in rows.items()
    ]
    fits.append(HeadFit(head="unknown", functional="", description=""))
    assert [fit.head for fit in sorted(fits, key=by_doubt)] == "sure wide edge far further unknown".split()
