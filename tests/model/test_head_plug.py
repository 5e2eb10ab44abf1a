"""A head of another kind, defined here: charges of atoms with a loss of their own, beside energies.

The charges to learn are q_i = 2 sum_j (z_j - z_i) f(r_ij) with z = 1 for neon and 0 for argon, which are
neutral in sum and, in a mixed crystal, far from any constant of an element.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.neighborlist import neighbor_list
from safetensors import safe_open
from torch import Tensor

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.deepmd.write import write_deepmd
from dpa2calc.errors import CheckpointError, ConfigError, DataError
from dpa2calc.model import heads as registry
from dpa2calc.model.config import DPA1Config, FittingConfig, HeadConfig, ModelConfig, to_dict
from dpa2calc.model.heads import Head, register
from dpa2calc.store.checkpoint import load_checkpoint, one_head
from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.sets import TrainingSet
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.finetune.finetune import finetune
from dpa2calc.training.fit.run import pretrain
from dpa2calc.training.fit.setup import new_potential
from dpa2calc.training.runs.result import TrainResult

# --- the head, as another package would add it ------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ChargeConfig(HeadConfig):
    """Charges of atoms; `neutrality` weighs the square of the total charge in the loss."""

    label: ClassVar[str] = "charges"
    unit: ClassVar[str] = "e"

    kind: Literal["charge"] = "charge"
    neutrality: float = 0.1


class ChargeHead(Head):
    """The fitting net's number, on top of the mean charge of the element."""

    mean: Tensor

    def __init__(self, head: ChargeConfig, n_types: int, descriptor_width: int, *, mixed_types: bool) -> None:
        super().__init__(head, n_types, descriptor_width, mixed_types=mixed_types)
        self.neutrality = head.neutrality
        self.register_buffer("mean", torch.zeros(n_types, dtype=torch.float32))

    def forward(self, descriptor, types, structure, fparam=None, aparam=None):
        return super().forward(descriptor, types, structure, fparam, aparam) + self.mean[types]

    def fit_to(self, labels, types):
        for kind in types.unique():
            self.mean[kind] = labels[types == kind].mean()

    def loss(self, values, labels, known, structure):
        total = values.new_zeros(int(structure.max()) + 1).index_add(0, structure, values)
        return super().loss(values, labels, known, structure) + self.neutrality * (total**2).mean()


@pytest.fixture(scope="module", autouse=True)
def plugged():
    register(ChargeConfig, ChargeHead)
    yield
    del HeadConfig.kinds["charge"], registry._CLASSES["charge"]


# --- data and a model -------------------------------------------------------------------------------


def charges(atoms: Atoms) -> np.ndarray:
    i, j, d = neighbor_list("ijd", atoms, 4.0)
    z = (atoms.numbers == 10).astype(float)
    return 2.0 * np.bincount(i, (z[j] - z[i]) * (1 - d / 4.0) ** 2, minlength=len(atoms))


def crystal(seed: int) -> Atoms:
    atoms = bulk("Ar", "fcc", a=4.6, cubic=True).repeat((2, 1, 1))
    rng = np.random.default_rng(seed)
    atoms.symbols[rng.permutation(8)[: rng.integers(2, 7)]] = "Ne"
    atoms.rattle(0.15, rng=rng)
    return atoms


def labelled(seed: int, *, of: str) -> Atoms:
    atoms = crystal(seed)
    if of == "charges":
        atoms.arrays["charges"] = charges(atoms)
        return atoms
    live = atoms.copy()
    live.calc = LennardJones(sigma=2.6, epsilon=0.05, rc=4.5, smooth=True)
    results = {"energy": live.get_potential_energy(), "forces": live.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def data(first: int, n: int, *, of: str = "charges") -> Dataset:
    return Dataset.from_atoms([labelled(s, of=of) for s in range(first, first + n)], name=of)


FITTING = FittingConfig(neuron=(16, 16))


def model() -> ModelConfig:
    descriptor = DPA1Config(cutoff=4.5, nsel=40, neuron=(6, 12), axis_neuron=3, tebd_dim=4, attn_layer=0)
    heads = (HeadConfig(name="E", fitting=FITTING), ChargeConfig(name="Q", fitting=FITTING))
    return ModelConfig(type_map=("Ne", "Ar"), descriptor=descriptor, heads=heads)


OPTIONS = TrainConfig(
    steps=250,
    batch_atoms=16,
    batches_per_step=2,
    learning_rate=1e-2,
    ema_decay=0.9,
    validate_every=125,
    final_bias_frames=4,
)


def charge_sets(first: int = 0) -> dict[str, TrainingSet]:
    return {"charges": TrainingSet(data(first, 24), data(50, 4), head="Q")}


@pytest.fixture(scope="module")
def run(tmp_path_factory, plugged) -> TrainResult:
    """A model with a head of energies and one of charges, of which the latter is trained."""
    folder = tmp_path_factory.mktemp("run")
    return pretrain(model(), charge_sets(), OPTIONS, output=folder, progress=False)


# --- physics ----------------------------------------------------------------------------------------


def test_it_learns_its_label(run):
    steps, errors = run.history.series("charges", "value_rmse")
    assert steps[0] == 0 and errors[-1] < 0.1 * errors[0]
    frames = [crystal(seed) for seed in range(50, 54)]
    of_neon = np.concatenate([charges(frame)[frame.numbers == 10] for frame in frames])
    assert errors[-1] < 0.3 * of_neon.std()  # the mean charge of the element, with which it began, leaves all
    assert "charges: 0.0" in run.summary()


def test_it_learns_beside_energies(tmp_path):
    energies = TrainingSet(data(0, 12, of="energies"), data(50, 4, of="energies"), head="E")
    options = dataclasses.replace(OPTIONS, steps=60, validate_every=60)
    run = pretrain(model(), {"e": energies, **charge_sets()}, options, output=tmp_path, progress=False)
    for name, quantity in (("charges", "value_rmse"), ("e", "force_rmse")):
        _, errors = run.history.series(name, quantity)
        assert errors[-1] < 0.7 * errors[0]
    assert run.history.series("e", "value_rmse") == ([], [])
    assert np.isfinite(DPA2Calculator(run.potential, "E").get_potential_energy(crystal(4)))


def test_its_own_loss_pulls_the_total_charge_to_zero(run):
    charge = DPA2Calculator(run.potential, "Q", dtype="float64")
    made = [result["charges"] for result in charge.evaluate([crystal(s) for s in range(60, 66)])]
    assert np.mean([abs(q.sum()) for q in made]) < 0.15 * np.mean([np.abs(q).sum() for q in made])
    head = run.potential.heads[1]
    values, structure = torch.tensor([0.5, 0.1, -0.2]), torch.tensor([0, 0, 1])
    known = torch.tensor([True, False, True])
    loss = head.loss(values, torch.zeros(3), known, structure)
    expected = (0.5**2 + 0.2**2) / 2 + 0.1 * (0.6**2 + 0.2**2) / 2
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_charges_are_those_of_the_atoms_however_the_structure_lies(run):
    calculator = DPA2Calculator(run.potential, "Q", dtype="float64")
    atoms = crystal(70)
    first = calculator.get_property("charges", atoms)
    turned = atoms.copy()
    turned.rotate(37.0, (1, 2, 3), rotate_cell=True)
    turned.positions += [0.7, -9.3, 2.2]
    order = np.random.default_rng(1).permutation(len(atoms))
    np.testing.assert_allclose(calculator.get_property("charges", turned[order]), first[order], atol=1e-10)
    several = calculator.evaluate([atoms, crystal(71)[:5], turned], batch_atoms=16)
    np.testing.assert_allclose(several[2]["charges"], first, atol=1e-10)
    assert len(several[1]["charges"]) == 5


# --- files, reports and what other parts make of it -------------------------------------------------


def test_it_comes_back_from_a_file(run, tmp_path):
    path = run.output / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        written = json.loads(file.metadata()["dpa2calc"])["config"]["heads"]
    assert "kind" not in written[0] and written[1]["kind"] == "charge" and written[1]["neutrality"] == 0.1
    again = load_checkpoint(path)
    assert isinstance(again.config.heads[1], ChargeConfig) and again.config.type_map == ("Ne", "Ar")
    frames = [
        crystal(seed) for seed in range(24)
    ]  # the mean of each element was fitted before the first step
    of_neon = np.concatenate([charges(frame)[frame.numbers == 10] for frame in frames])
    assert float(again.heads[1].mean[0]) == pytest.approx(of_neon.mean(), rel=1e-5)
    alone = one_head(again, "Q")
    made = DPA2Calculator(again, "Q").get_property("charges", crystal(3))
    np.testing.assert_array_equal(DPA2Calculator(alone).get_property("charges", crystal(3)), made)


def test_the_run_resumes_only_with_the_same_kind_of_head(run):
    again = pretrain(model(), charge_sets(), OPTIONS, output=run.output, progress=False)
    assert again.steps == 250 and again.best_score == run.best_score
    with pytest.raises(ConfigError, match="labels"):
        pretrain(model(), charge_sets(1), OPTIONS, output=run.output, progress=False)
    plain = dataclasses.replace(model(), heads=tuple(HeadConfig(name=n, fitting=FITTING) for n in "EQ"))
    frames = Dataset.from_atoms([labelled(0, of="energies")])
    with pytest.raises(ConfigError, match="kind of head"):
        pretrain(
            plain, {"charges": TrainingSet(frames, head="Q")}, OPTIONS, output=run.output, progress=False
        )


def test_evaluate_gives_its_errors(run):
    found = evaluate(run.potential, data(50, 4), head="Q").errors
    calculator = DPA2Calculator(run.potential, "Q")
    made = [calculator.get_property("charges", crystal(seed)) for seed in range(50, 54)]
    differences = np.concatenate([m - charges(crystal(seed)) for m, seed in zip(made, range(50, 54))])
    assert found.value_rmse == pytest.approx(np.sqrt(np.mean(np.square(differences))), rel=1e-4)
    assert found.value_mae == pytest.approx(np.mean(np.abs(differences)), rel=1e-4)
    assert found.energy_rmse is None and found.force_rmse is None
    assert "value RMSE 0." in str(found) and "energy" not in str(found)


def test_committees_and_descriptions_name_the_property(run):
    calculator = DPA2Calculator(run.potential, "Q", committee=[run.output / "last.safetensors"])
    results = calculator.evaluate([crystal(4)])[0]
    assert results.keys() == {"charges", "charges_std"} and results["charges_std"].shape == (8,)
    assert "Q predicts charges (e), no energies" in calculator.describe()


def test_energies_are_refused(run, tmp_path):
    calculator = DPA2Calculator(run.potential, "Q")
    atoms = crystal(5)
    atoms.calc = calculator
    for ask in (atoms.get_potential_energy, atoms.get_forces, atoms.get_stress):
        with pytest.raises(PropertyNotImplementedError):
            ask()
    with pytest.raises(ConfigError, match="head 'Q' predicts charges, no energies"):
        run.potential.atomic_energies(None, None, 1)
    with pytest.raises(ConfigError, match="head 'Q' predicts charges, no energies"):
        calculator.get_hessian(atoms)
    with pytest.raises(ConfigError, match="dispersion adds to energies"):
        DPA2Calculator(run.potential, "Q", dispersion="d3bj:pbe")
    with pytest.raises(ConfigError, match="predict different things"):
        DPA2Calculator(run.potential, "E", committee=[(None, "Q")])
    with pytest.raises(CheckpointError, match="head Q predicts charges"):
        write_deepmd(run.potential, tmp_path / "q.dp", "Q")
    options = FinetuneConfig(steps=1, start_head="Q")
    with pytest.raises(ConfigError, match="start_head = 'Q' predicts charges"):
        finetune(run.potential, data(0, 4, of="energies"), options, output=tmp_path, progress=False)


def test_sets_need_the_label_and_files_a_known_kind(tmp_path):
    with pytest.raises(DataError, match=r"no frame has charges, which its head learns; set atoms.arrays"):
        sets = {"q": TrainingSet(data(0, 2, of="energies"), head="Q")}
        pretrain(model(), sets, TrainConfig(steps=1), output=tmp_path, progress=False)
    with pytest.raises(DataError, match=r"charges: shape \(3,\), expected \(8,\)"):
        atoms = crystal(0)
        atoms.info["charges"] = [0.0, 1.0, 2.0]
        Dataset.from_atoms([atoms])
    with pytest.raises(ConfigError, match=r"head.kind = 'charge' is not allowed; allowed: .*charge \(Charge"):
        HeadConfig(kind="charge")
    with pytest.raises(ConfigError, match=r"heads\[1\].kind = 'spin' is not allowed; .* energy, charge"):
        values = to_dict(model())
        values["heads"][1]["kind"] = "spin"
        ModelConfig(**values)


def test_heads_of_two_kinds_cannot_begin_as_one(tmp_path):
    sets = {"E": data(0, 2, of="energies"), "Q": data(0, 2)}
    with pytest.raises(ConfigError, match="heads of one kind with equal fitting nets; 'Q' differs from 'E'"):
        pretrain(model(), sets, TrainConfig(steps=2, shared_steps=1), output=tmp_path, progress=False)


def test_new_weights_are_the_same_with_and_without_a_kind():
    assert to_dict(HeadConfig())["name"] == "Default" and "kind" not in to_dict(HeadConfig())
    one = new_potential(model(), seed=1).state_dict()
    two = new_potential(ModelConfig(**to_dict(model())), seed=1).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
