"""The model's part of an error bar: models whose answer is known, and models run one by one."""

import copy
import dataclasses
import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from architectures import TYPE_MAP, make_potential
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from emt_cases import with_emt

from dpa2calc.applications import (
    EquationOfState,
    elastic_constants,
    equation_of_state,
    nudged_elastic_band,
    relax,
    surface_energy,
    vacancy_formation_energy,
    vacancy_hop,
)
from dpa2calc.applications.crystals.phonopy_bridge import gamma_errors, primitive_cell
from dpa2calc.applications.shared.cached import Evaluated, evaluate
from dpa2calc.applications.shared.ensemble import spread
from dpa2calc.calculator import DPA2Calculator
from dpa2calc.errors import StructureError
from dpa2calc.files.results import ModelDoubt
from dpa2calc.model import rigidity
from dpa2calc.model.rigidity import Rigidity, RigidityFacts

SHARES = np.array([0.1, -0.2, 0.05])  # by which the members' energies differ from those of the model
RMS = float(np.sqrt(np.mean(SHARES**2)))


class Unsure(EMT):
    """EMT with an ensemble whose members are stronger or weaker as a whole; counts how often it is asked."""

    asked = 0

    def get_ensemble(self, atoms: Atoms) -> dict[str, np.ndarray]:
        type(self).asked += 1
        calc = EMT()
        return {
            "energy": SHARES * calc.get_potential_energy(atoms),
            "forces": SHARES[:, None, None] * calc.get_forces(atoms),
            "stress": SHARES[:, None] * calc.get_stress(atoms),
        }

    @contextmanager
    def watching(self, atoms=None):
        yield lambda: ModelDoubt(head="emt", force_error=0.05, typical_force=0.5, energies_std=0.002,
                                 element="Cu", beyond=0.5)  # fmt: skip


@pytest.fixture
def copper():
    atoms = bulk("Cu", a=3.59)
    atoms.calc = Unsure()
    return atoms


def test_elastic_constants_of_stronger_models(copper):
    """Every constant scales with the energy; so does its error, to which the fit has nothing to add."""
    result = elastic_constants(copper, progress=False)
    for name, (value, _) in result.constants.items():
        assert result.model_errors[name] == pytest.approx(RMS * value, rel=1e-6)
    assert result.model_errors["bulk_hill"] == pytest.approx(RMS * result.moduli["bulk_hill"], rel=1e-6)
    assert result.model_errors["poisson_hill"] == pytest.approx(0, abs=1e-10)
    assert "C11 172.59 ± 0.01 (fit) ± 23 (model) GPa" in result.summary()
    assert "error of the model comes on top" not in result.summary()


def test_curves_of_stronger_models(copper):
    result = equation_of_state(copper, progress=False)
    assert result.model_errors["bulk_modulus"] == pytest.approx(RMS * result.bulk_modulus, rel=1e-4)
    assert result.model_errors["volume"] == pytest.approx(0, abs=1e-5)
    assert "(model) GPa" in result.summary()


def test_energies_of_defects_of_stronger_models(copper):
    vacancy = vacancy_formation_energy(copper, min_lengths=(6.0, 8.0), progress=False)
    assert vacancy.model_errors == {"energy": pytest.approx(RMS * vacancy.energy, rel=1e-6)}
    surface = surface_energy(copper, thicknesses=(5, 9), progress=False)
    assert surface.model_errors == {"energy": pytest.approx(RMS * surface.energy, rel=1e-6)}
    hop = nudged_elastic_band(*vacancy_hop(copper, min_length=6.0), n_images=3, fmax=0.2, progress=False)
    assert hop.model_errors["barrier_forward"] == pytest.approx(RMS * hop.barrier_forward, rel=1e-6)
    assert f"± {RMS * hop.barrier_backward:.2g} (model) eV" in hop.summary()


def test_modes_at_gamma_of_stronger_models():
    """Frequencies go with the root of the energy, and the zero modes are none."""
    pytest.importorskip("phonopy")
    atoms = bulk("CuAu", "cesiumchloride", a=3.1)
    atoms.calc = Unsure()
    primitive = primitive_cell(relax(atoms, relax="cell", keep_symmetry=True, progress=False).atoms(), 1e-3)
    errors = gamma_errors(primitive, Unsure(), displacement=0.01, folder=None)
    assert set(errors) == {"gamma_4", "gamma_5", "gamma_6"}
    exact = math.sqrt(np.mean((np.sqrt(1 + SHARES) - 1) ** 2))
    frequency = errors["gamma_6"] / exact
    assert 1 < frequency < 10 and errors["gamma_4"] == pytest.approx(errors["gamma_6"], rel=1e-3)
    assert gamma_errors(bulk("Cu"), Unsure(), displacement=0.01, folder=None) == {}


def test_without_doubt_nothing_is_said():
    atoms = with_emt(bulk("Cu", a=3.59))
    result = equation_of_state(atoms, progress=False)
    assert result.doubt is None and result.model_errors == {}
    assert "model" not in result.summary() and "(fit)" not in result.summary()


def test_the_line_on_the_model_is_told_once_and_kept(copper, tmp_path):
    result = equation_of_state(copper, progress=False)
    line = (
        "model emt: test force error 50 meV/Å, 10% of its test forces; least known atom (Cu) ± 2 meV, 0.5 "
        "times its range: like its training set"
    )
    assert result.summary().endswith(line) and result.summary().count("model emt") == 1
    again = EquationOfState.load(result.save(tmp_path / "eos.npz"))
    assert again.doubt == result.doubt and again.model_errors == result.model_errors
    assert again.summary() == result.summary()


def test_the_ensemble_is_kept_in_the_folder(copper, tmp_path):
    options = {"what": "a crystal", "folder": tmp_path, "stress": True, "progress": False}
    (plain,) = evaluate([copper], copper.calc, **options)
    assert plain.ensemble is None
    before = Unsure.asked
    (first,), (second,) = (evaluate([copper], copper.calc, ensemble=True, **options) for _ in range(2))
    assert Unsure.asked == before + 1  # of the structure that was there without
    for name, value in first.ensemble.items():
        np.testing.assert_array_equal(second.ensemble[name], value)


def point(energy, changes):
    forces, members = np.zeros((0, 3)), {"energy": np.array(changes)}
    return Evaluated(energy=energy, forces=forces, stress=np.zeros(6), atoms=Atoms(), ensemble=members)


def test_a_linear_property_has_the_exact_deviation():
    """Members drawn from a Gaussian posterior of weights: the spread is the analytic one."""
    rng = np.random.default_rng(0)
    features, factor = rng.normal(size=(4, 3)), rng.normal(size=(3, 3))
    draws = rng.normal(size=(20_000, 3)) @ factor
    points = [point(f.sum(), draws @ f) for f in features]
    weights = np.array([1.0, -2.0, 0.5, 3.0])  # of the property in the four energies
    found = spread(lambda of: {"x": float(weights @ [p.energy for p in of])}, points)
    assert found["x"] == pytest.approx(np.linalg.norm(factor @ features.T @ weights), rel=0.02)


def test_where_a_fit_fails_a_smaller_change_is_tried():
    def square(of):
        if of[0].energy > 2.5:
            raise StructureError("no minimum")
        return {"square": of[0].energy ** 2}

    assert spread(square, [point(1.0, [4.0])])["square"] == pytest.approx((2.0**2 - 1) / 0.25)
    assert math.isnan(spread(square, [point(1.0, [400.0, 1.0])])["square"])
    assert spread(square, [dataclasses.replace(point(1.0, [1.0]), ensemble=None)]) == {}


def test_constants_of_models_with_drawn_weights_one_by_one(monkeypatch):
    """The ensemble of one evaluation is that of models with changed last layers, run one after the other."""
    monkeypatch.setattr(rigidity, "MEMBERS", 2)
    potential = make_potential("deeppot-se")
    head = potential.heads[0]
    normal = torch.Generator().manual_seed(1)
    factor = 0.05 * torch.randn(len(head.nets), 10, 10, generator=normal).tril()
    facts = RigidityFacts(scale=0.05, force_scale=1.5, frames=3, atoms=12)
    head.rigidity = Rigidity(factor, torch.full((len(TYPE_MAP),), 1e9), facts).double()
    options = {"relax": "fixed", "relax_ions": False, "progress": False}
    atoms = bulk("CuO", "rocksalt", a=4.3)

    def constants(model):
        atoms.calc = DPA2Calculator(model, dtype="float64", device="cpu")
        with pytest.warns(UserWarning, match="the crystal is not relaxed"):
            return elastic_constants(atoms, **options)

    result = constants(potential)
    changes = []
    for draw in head.rigidity.draws(torch.arange(len(head.nets))):
        moved = copy.deepcopy(potential)
        for net, change in zip(moved.heads[0].nets, draw):
            net.layers[-1].matrix.data[:, 0] += change
        changes.append(constants(moved).standard_tensor - result.standard_tensor)
    by_hand = np.sqrt(np.mean(np.square(changes), axis=0))
    assert result.model_errors["C11"] == pytest.approx(by_hand[0, 0], rel=1e-6) and by_hand[0, 0] > 0.01
    assert result.model_errors["C44"] == pytest.approx(by_hand[3, 3], rel=1e-6)
    assert result.doubt.head == "PBE" and result.doubt.energies_std > 0
