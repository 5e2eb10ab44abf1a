"""Relaxing together: the rows of the loop, whatever moves; bad structures among good ones; resuming."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from emt_cases import metals, rattled

from dpa2calc import DPA2Calculator
from dpa2calc.applications import relax, screen
from dpa2calc.applications.screening import together
from dpa2calc.applications.screening.sources import Item
from dpa2calc.applications.screening.tasks import jobs
from dpa2calc.errors import ConfigError


class Together(EMT):
    """EMT with `evaluate`, which fails as a whole where one structure is bad; notes the sizes of batches."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def evaluate(self, structures):
        self.batches.append(len(structures))
        found = []
        for atoms in structures:
            own = EMT()
            own.calculate(atoms)
            found.append(own.results)
        return found


def crystals(n=5):
    """The last with an atom that is held."""
    made = metals(n)
    made[-1].set_constraint(FixAtoms([0]))
    return made


def rows(frames, calculator, path, **options):
    """Records by key."""
    words = {"calculator": calculator, "output": path, "progress": False}
    return {record["key"]: record for record in screen(frames, "relax", **words, **options).records()}


def assert_same(found, expected):
    """The same rows; numbers to rounding."""
    assert found.keys() == expected.keys()
    for key, record in found.items():
        other = expected[key]
        for name in ("positions", "cell"):
            np.testing.assert_allclose(record.get(name, 0), other.get(name, 0), atol=1e-8)
        results = [dict(one.get("results", {})) for one in (record, other)]
        energies = [one.pop("energy", 0.0) for one in results]
        assert energies[0] == pytest.approx(energies[1], abs=1e-9)
        assert results[0] == results[1]
        for name in ("status", "error", "warnings", "formula", "numbers", "pbc"):
            assert record.get(name) == other.get(name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"relax": "cell", "pressure_gpa": 2.0, "max_steps": 12},
        {"relax": "volume", "optimizer": "fire", "max_steps": 4},
        {"optimizer": "bfgs-linesearch", "fmax": 0.05},
        {"optimizer": "gpmin", "max_steps": 3},
    ],
)
def test_rows_are_those_of_the_loop(options, tmp_path):
    calculator = Together()
    found = rows(crystals(), calculator, tmp_path / "together.jsonl", **options)
    assert_same(found, rows(crystals(), EMT(), tmp_path / "loop.jsonl", **options))
    assert calculator.batches[0] == 5
    *_, held = found.values()
    if "relax" not in options:
        assert held["positions"][0] == crystals()[-1].positions[0].tolist()


@pytest.mark.skipif(find_spec("spglib") is None, reason="spglib is not installed (extra: applications)")
def test_symmetry_is_kept(tmp_path):
    frames = [bulk("Cu", cubic=True, a=3.7), bulk("Ag", cubic=True)]
    for atoms in frames:
        atoms.set_cell(atoms.cell * [1, 1, 1.05], scale_atoms=True)
    options = {"relax": "cell", "keep_symmetry": True}
    found = rows(frames, Together(), tmp_path / "together.jsonl", **options)
    assert_same(found, rows(frames, EMT(), tmp_path / "loop.jsonl", **options))
    for record in found.values():
        assert record["cell"][0][0] == pytest.approx(record["cell"][1][1], abs=1e-9)
    model = Together()
    model.ignored_changes = {"initial_magmoms"}  # of no account for the symmetry then
    assert together._Handed(model).ignored_changes == {"initial_magmoms"}


class Explodes(Together):
    """Fails far on the way of silver."""

    def calculate(self, atoms=None, *args, **kwargs):
        if atoms.symbols[0] == "Ag" and abs(atoms.positions - crystals()[1].positions).max() > 1e-3:
            raise FloatingPointError("gone")
        super().calculate(atoms, *args, **kwargs)

    def evaluate(self, structures):
        for atoms in structures:
            self.calculate(atoms)
        return super().evaluate(structures)


def test_bad_structures_do_not_touch_the_others(tmp_path):
    overlap = Atoms("Cu2", positions=np.zeros((2, 3)), cell=[5, 5, 5], pbc=True)
    lost = bulk("Cu")
    lost.positions[0] = np.nan
    frames = [bulk("W"), *crystals(), lost, Atoms()]
    found = rows(frames, Explodes(), tmp_path / "together.jsonl")
    errors = {record["name"]: record["error"] for record in found.values() if record["status"] == "failed"}
    assert list(errors) == ["structure 6", "structure 7", "structure 0", "structure 2"]  # as they end
    assert errors["structure 2"] == "FloatingPointError: gone"
    assert "NaN" in errors["structure 6"] and "no atoms" in errors["structure 7"]
    good = {key: record for key, record in found.items() if record["status"] == "done"}
    alone = rows(crystals(), EMT(), tmp_path / "loop.jsonl")
    assert_same(good, {key: record for key, record in alone.items() if record["formula"] != "Ag4"})
    assert_same(
        rows([overlap, bulk("W")], Together(), tmp_path / "b.jsonl"),
        rows([overlap, bulk("W")], EMT(), tmp_path / "c.jsonl"),
    )


def test_order_and_neighbours_in_the_batch_do_not_matter(tmp_path, monkeypatch):
    expected = rows(crystals(), Together(), tmp_path / "one.jsonl")
    monkeypatch.setattr(together, "_AT_ONCE", 2)
    calculator = Together()
    assert_same(rows(crystals()[::-1], calculator, tmp_path / "two.jsonl"), expected)
    assert set(calculator.batches) == {2}  # a new structure takes the place of one that is finished


def test_large_structures_are_relaxed_on_their_own(tmp_path):
    calculator = Together()
    rows([bulk("Cu") * (5, 4, 4), bulk("Cu")], calculator, tmp_path / "one.jsonl", max_steps=1)
    assert calculator.batches == []


def test_with_tables_sooner(tmp_path, monkeypatch):
    monkeypatch.setattr(together, "_MOST_WITH_TABLES", 3)
    calculator = Together()
    calculator.parameters["compressed"] = True
    found = rows(crystals(2), calculator, tmp_path / "one.jsonl")
    assert calculator.batches == []
    assert_same(found, rows(crystals(2), EMT(), tmp_path / "loop.jsonl"))


def test_an_interrupted_screening_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(together, "_AT_ONCE", 2)

    output = tmp_path / "out.jsonl"

    class Stopped(Together):
        def evaluate(self, structures):
            if len(output.read_text().splitlines()) > 2:  # the header and two records
                raise KeyboardInterrupt
            return super().evaluate(structures)

    Stopped.__name__ = "Together"  # the identity of the run that resumes
    words = {"output": output, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        screen(crystals(), "relax", calculator=Stopped(), **words)
    again = screen(crystals(), "relax", calculator=Together(), **words)
    assert again.n_earlier >= 2 and again.n_earlier + again.n_done == 5
    found = {record["key"]: record for record in again.records()}
    assert_same(found, rows(crystals(), EMT(), tmp_path / "loop.jsonl"))


def test_the_model_s_own_energies(tmp_path):
    calc = DPA2Calculator("student-water", dtype="float64")
    frames = rattled(molecule("H2O"), 3, 0.03)
    found = rows(frames, calc, tmp_path / "out.jsonl", fmax=0.02, max_steps=60)
    for record, atoms in zip(sorted(found.values(), key=lambda one: one["name"]), frames):
        atoms.calc = calc
        ours = relax(atoms, fmax=0.02, max_steps=60, progress=False)
        assert record["results"]["energy"] == pytest.approx(ours.energy, abs=1e-6)
        assert record["results"]["converged"] == ours.converged


def test_processes_get_portions_and_give_the_same_rows(tmp_path):
    item = Item("key", "name", bulk("Cu"))
    large = replace(item, atoms=bulk("Cu") * (5, 5, 5))
    sizes = [len(job) for job in jobs(Together(), "relax", iter([item] * 600))]
    assert sizes[0] == 32 and sizes[-1] == 1 and sum(sizes) == 600
    assert [len(job) for job in jobs(Together(), "relax", iter([item] * 40))][:2] == [
        2,
        2,
    ]  # for 16 processes
    assert [len(job) for job in jobs(EMT(), "relax", iter([item] * 3))] == [1, 1, 1]
    mixed = list(jobs(Together(), "relax", iter([item, large] * 64)))
    assert all(len(job) == 1 for job in mixed if large in job)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        found = rows(crystals(), Together(), tmp_path / "two.jsonl", executor=pool)
    assert_same(found, rows(crystals(), Together(), tmp_path / "one.jsonl"))


def test_a_wrong_value_is_refused_before_the_work(tmp_path):
    with pytest.raises(ConfigError, match="relax = 'all' is not allowed; allowed: positions, volume"):
        rows(crystals(1), EMT(), tmp_path / "out.jsonl", relax="all")
    with pytest.raises(ConfigError, match="fmax"):
        rows(crystals(1), EMT(), tmp_path / "out.jsonl", fmax="small")
    assert not list(tmp_path.iterdir())
