"""Functions of the scripts in examples/paper, against the paper's own tables and numbers made by hand."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from dpa2calc.model.config import RepformerConfig
from dpa2calc.training import Dataset, Errors, LearningCurve, paper_sets
from dpa2calc.training.learning_curve import Point


def pretraining_weights() -> dict[str, float]:
    """By the names of Table S3, which calls SemiCond-P SemiCond."""
    sets = [s for s in paper_sets().values() if s.role == "pretrain"]
    return {s.name.replace("SemiCond-P", "SemiCond"): s.weight for s in sets}


def test_shares_of_draws_are_the_effective_steps_of_table_s3(script):
    """The paper: weight / 13.2 * 8 * 1000K steps of single-task training."""
    steps = script("multitask_tables").TABLE_S3
    shares = script("multitask").shares_of_draws(pretraining_weights(), 8_000_000)
    assert shares.keys() == steps.keys()
    for name, share in shares.items():
        assert round(share / 1000) == steps[name][0], name


def test_no_set_is_left_without_a_batch(script):
    assert script("multitask").shares_of_draws({"a": 1.0, "b": 1e-6}, 10) == {"a": 10, "b": 1}


def test_a_comparison_run_from_elsewhere_has_the_batches_of_its_file(script, monkeypatch):
    module = script("multitask")
    recipe = Path(module.__file__).with_name("comparison.toml")
    given = ["multitask.py", "--model", "last.safetensors", "--recipe", str(recipe)]
    monkeypatch.setattr(sys, "argv", given)
    args = module.options()
    assert args.single == [] and (args.shared_steps, args.steps) == (800, 10000)
    assert module.batches(args) == 4 * 10800
    assert module.weights_of(args, "multi") == Path("last.safetensors")
    assert module.weights_of(args, "single/a") == args.output / "single/a/last.safetensors"
    monkeypatch.setattr(sys, "argv", [*given, "--single", "all", "--steps", "200"])
    args = module.options()
    assert args.single == ["all"] and module.batches(args) == 4 * 1000
    monkeypatch.setattr(sys, "argv", ["multitask.py"])
    assert module.options().single == list(module.SINGLE)


@pytest.mark.parametrize("column", [1, 2, 3, 4])
def test_weighted_mean_of_table_s3_is_its_last_row(script, column):
    numbers = script("paper_numbers")
    weights = pretraining_weights()
    mean = script("common").weighted_mean(
        [row[column] for row in numbers.TABLE_S3.values()], [weights[n] for n in numbers.TABLE_S3]
    )
    assert mean == pytest.approx(numbers.S3_AVERAGE[column - 1], abs=0.06)


def test_weighted_mean_leaves_out_what_is_not_known(script):
    mean = script("common").weighted_mean
    assert mean([1.0, None, 4.0], [2.0, 5.0, 1.0]) == pytest.approx(2.0)
    assert mean([None], [1.0]) is None


def test_table_s3_of_our_errors(script):
    def errors(energy: float, force: float) -> dict[str, float]:
        return {"energy_rmse": energy, "force_rmse": force}

    own = {
        "a": {"multi": errors(4.0, 60.0), "single": errors(2.0, 50.0)},
        "b": {"multi": errors(1.0, 30.0)},
    }
    table = script("multitask_tables").table_s3(own, {"a": 20, "b": 10}, {"a": 2.0, "b": 1.0})
    assert table.rows[0] == ("a", 20, 2.0, 4.0, 2.0, 50.0, 60.0, 1.2)
    assert table.rows[1] == ("b", 10, None, 1.0, None, None, 30.0, None)
    assert table.rows[2] == ("WARMSE, all sets", "", None, 3.0, None, None, 50.0, None)
    assert table.rows[3] == ("WARMSE, sets with both", "", 2.0, 4.0, 2.0, 50.0, 60.0, 1.2)


def test_deviation_of_frames_without_structure(script):
    """Energies +1 and -1 eV about the mean of two-atom frames, forces of 1 eV/Å on every component."""
    frames = []
    for energy in (-9.0, -11.0):
        atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.8]])
        atoms.info["energy"] = energy
        atoms.arrays["forces"] = np.ones((2, 3))
        frames.append(atoms)
    found = script("multitask").deviation(Dataset.from_atoms(frames, name="ar"))
    assert found["energy_rmse"] == pytest.approx(500.0)
    assert found["force_rmse"] == pytest.approx(1000.0)


def test_table_text(script):
    report = script("report")
    table = report.Table("errors", ("set", "E"), (("a", 123.456), ("bb", None), ("c", 0.01234)))
    assert table.text().splitlines() == [
        "errors",
        "------",
        "set      E",
        "a    123.5",
        "bb       -",
        "c    0.012",
    ]


def test_report_adds_up_the_time_of_its_records(script, tmp_path):
    record, report = script("record"), script("report")
    for name, seconds in (("a", 60.0), ("deeper/b", 30.0)):
        record.save_record(tmp_path / f"{name}.json", {}, record.time.time() - seconds)
    for _ in range(2):  # the report's own file is not counted the second time
        text = report.write_report(
            tmp_path, "all", title="T", tables=[report.Table("c", ("x",), ((1,),))], quick=True
        )
    assert "1.5 minutes of work" in text and report.QUICK in text
    assert record.load_record(tmp_path / "all.json")["work_seconds"] == pytest.approx(90.0, abs=2.0)


def test_finished_work_is_not_repeated(script, tmp_path):
    once = script("record").once
    calls = []

    def work() -> dict[str, int]:
        calls.append(1)
        return {"value": 7}

    first, second = once(tmp_path / "x.json", work), once(tmp_path / "x.json", work)
    assert calls == [1] and first == second and second["value"] == 7
    assert {"cpu", "cores", "torch"} <= second["run"]["machine"].keys()


def test_another_number_of_steps_than_recorded_is_refused(script, tmp_path):
    with pytest.raises(SystemExit, match="finished run of 10 steps, not 20"):
        script("common").require_steps({"steps": 10}, 20, tmp_path / "x.json")


@pytest.mark.parametrize(
    ("frames", "atoms", "expected"),
    [(100, 40, 500), (100, 400, 300), (3, 40, 100), (1000, 40, 600)],  # batches of 2, 1, 2, 2 frames
)
def test_steps_for_a_number_of_passes(script, frames, atoms, expected):
    assert script("common").steps_for(frames, atoms, 100, epochs=10, least=100, most=600) == expected


def curve(errors: dict[str, dict[int, float]]) -> LearningCurve:
    def of(value: float) -> Errors:
        return Errors(
            n_frames=1, n_atoms=1, energy_rmse=value, energy_mae=value, force_rmse=value, force_mae=value
        )

    points = [Point(scheme, n, of(v)) for scheme, values in errors.items() for n, v in values.items()]
    return LearningCurve("set", tuple(points))


def test_factor_of_frames_saved(script):
    """Errors fall as 1 / sqrt(n): the fourfold error of scratch is worth 16 times the frames."""
    sizes = (10, 100, 1000)
    module = script("sample_efficiency")
    found = curve(
        {
            module.TUNED: {n: 100 / n**0.5 for n in sizes},
            module.SCRATCH: {n: 400 / n**0.5 for n in sizes},
            module.SE: {n: 4000.0 for n in sizes},
            module.DPA1: {n: 1.0 for n in sizes},
        }
    )
    assert float(module.saved(found, module.SCRATCH, "force_rmse")) == pytest.approx(16.0)
    assert module.saved(found, module.SE, "force_rmse") == "> 100"
    assert module.saved(found, module.DPA1, "force_rmse") == "< 1"
    rows = module.factors({"set": found}, module.SCHEMES).rows
    assert [row[1] for row in rows] == [module.SCRATCH, module.DPA1, module.SE]


def test_ablation_switches_are_parts_of_the_layer(script):
    module = script("ablation")
    options = {f.name for f in dataclasses.fields(RepformerConfig)}
    assert set(module.WHOLE) <= options
    single, sequential = module.variants(False), module.variants(True)
    assert list(single) == ["all parts", *script("paper_numbers").TABLE_S5]
    assert set().union(*single.values()) == set(module.WHOLE)
    assert all(len(off) == 1 for name, off in single.items() if name != "all parts")
    assert sequential["attn"] == ("update_g2_has_g1g1", "attn2_has_gate", "update_g2_has_attn")


def test_rises_of_the_ablation(script):
    module = script("ablation")
    errors = {
        "all parts": {"a": {"energy_rmse": 1.0, "force_rmse": 10.0}},
        "conv": {"a": {"energy_rmse": 3.0, "force_rmse": 15.0}},
        "sym_f": {"a": {"energy_rmse": 4.0, "force_rmse": 12.0}},
    }
    alone = module.table_s5(errors, {"a": 1.0}, sequential=False).rows
    after = module.table_s5(errors, {"a": 1.0}, sequential=True).rows
    assert alone[2] == ("sym_f", 4.0, 12.0, "+3.0", "+2.0", "+0.7", "+10.4")
    assert after[2] == ("sym_f", 4.0, 12.0, "+1.0", "-3.0", "+0.7", "+10.4")


def test_heads_to_compare(script):
    spread = script("head_choice").spread
    assert spread(["a", "b", "c", "d", "e"]) == ["a", "b", "c", "e", "fresh"]
    assert spread(["a"]) == ["a", "fresh"]


def test_a_molecule_is_boxed_with_vacuum(script):
    module = script("outside")
    water = molecule("H2O")
    frame = Dataset.from_atoms([_labelled(water)], name="w")[0]
    boxed = module.boxed(frame).atoms()
    assert boxed.pbc.all() and boxed.get_all_distances() == pytest.approx(water.get_all_distances())
    gaps = [boxed.cell.lengths()[i] - np.ptp(boxed.positions[:, i]) for i in range(3)]
    assert min(gaps) >= module.VACUUM - 1e-9
    assert module.fits(Dataset.from_atoms([_labelled(water)], name="w"))
    assert not module.fits(Dataset.from_atoms([_labelled(Atoms("Rn"))], name="rn"))


def test_the_calmest_frame_of_a_suitable_size(script):
    def frame(n: int, force: float) -> Atoms:
        atoms = Atoms(f"Ar{n}", positions=4.0 * np.arange(3 * n).reshape(n, 3))
        return _labelled(atoms, force)

    data = Dataset.from_atoms([frame(2, 0.1), frame(4, 3.0), frame(5, 2.0), frame(9, 0.2)], name="ar")
    assert len(script("nve").calmest(data, 3, 6)) == 5
    with pytest.raises(SystemExit, match="no test frame of 20 to 30 atoms"):
        script("nve").calmest(data, 20, 30)


def _labelled(atoms: Atoms, force: float = 0.0) -> Atoms:
    atoms.info["energy"] = 0.0
    atoms.arrays["forces"] = np.full((len(atoms), 3), force)
    return atoms


def test_recipe_of_a_quick_run_is_the_comparison_run_made_small(script):
    common = script("common")
    args = SimpleNamespace(seed=3, device="cpu", quick=True)
    quick, whole = common.recipe(args, steps=5), common.recipe()
    assert quick.config.steps == 5 and quick.config.seed == 3
    assert quick.config.learning_rate == whole.config.learning_rate
    assert whole.sets and not set(common.LEFT_OUT) & set(whole.sets)
