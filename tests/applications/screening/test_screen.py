"""Screening: the same numbers as a loop, on any executor; bad structures; resuming, also after a kill."""

import logging
import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.db import connect
from ase.io import write
from emt_cases import metals, rattled, with_emt
from screening_cases import ENDINGS, PARQUET, by_name, emt

from dpa2calc import DPA2Calculator
from dpa2calc.applications import elastic_constants, read_screening, relax, screen
from dpa2calc.applications.screening.tasks import run_remotely
from dpa2calc.errors import ConfigError, DataError, MissingDependencyError, StructureError


def same_records(one, other):
    """Words alike, numbers to rounding: the order of a neighbour list that EMT keeps depends on the past."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_records(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_records, one, other))
    return one == pytest.approx(other, rel=1e-7, abs=1e-7) if isinstance(one, float) else one == other


@pytest.mark.parametrize("ending", ENDINGS)
def test_evaluation_gives_the_numbers_of_a_loop(ending, tmp_path):
    result = emt(metals(7), "evaluate", tmp_path / f"out.{ending}")
    assert (result.n_done, result.n_failed, result.n_earlier) == (7, 0, 0)
    records = by_name(result.output)
    for number, atoms in enumerate(metals(7)):
        atoms.calc = EMT()
        found = records[f"structure {number}"]
        assert found["results"]["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(found["results"]["forces"], atoms.get_forces(), atol=1e-12)
        np.testing.assert_array_equal(found["positions"], atoms.positions)


def test_small_structures_are_evaluated_together_with_the_same_numbers(tmp_path):
    calc = DPA2Calculator("student-water", dtype="float64")
    frames = rattled(molecule("H2O"), 5, 0.03)
    frames[2].calc = None
    result = screen(frames, "evaluate", calculator=calc, output=tmp_path / "out.jsonl", progress=False)
    assert result.n_done == 5
    for record, atoms in zip(result.records(), frames):
        atoms.calc = calc
        assert record["results"]["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
        np.testing.assert_allclose(record["results"]["forces"], atoms.get_forces(), atol=1e-10)
        assert "stress" not in record["results"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("task", ["evaluate", "relax"])
def test_records_keep_what_structures_carried(task, ending, tmp_path):
    atoms = bulk("Ni", cubic=True)
    atoms.set_masses([58, 60, 62, 64])
    atoms.set_initial_magnetic_moments([0.6, -0.6, 0.6, -0.6])
    atoms.set_initial_charges([0.1, -0.1, 0.0, 0.0])
    atoms.set_tags([1, 2, 3, 4])
    atoms.info.update(name="nickel", energy=-1.0)
    output = tmp_path / f"out.{ending}"
    emt([atoms], task, output)
    (record,) = read_screening(output)
    assert record["attached"] == {
        "arrays": {
            "masses": [58, 60, 62, 64],
            "initial_magmoms": [0.6, -0.6, 0.6, -0.6],
            "initial_charges": [0.1, -0.1, 0.0, 0.0],
            "tags": [1, 2, 3, 4],
        },
        "info": {"name": "nickel"},
    }
    if ending == "db":
        row = connect(output).get_atoms(1)
        np.testing.assert_array_equal(row.get_masses(), atoms.get_masses())
        np.testing.assert_array_equal(row.get_initial_magnetic_moments(), [0.6, -0.6, 0.6, -0.6])
        np.testing.assert_array_equal(row.get_tags(), [1, 2, 3, 4])


def test_relaxation_in_a_database_that_can_be_searched(tmp_path):
    output = tmp_path / "relaxed.db"
    emt(metals(2), "relax", output, relax="cell")
    atoms = with_emt(metals(1)[0])
    ours = relax(atoms, relax="cell", progress=False)
    row = connect(output).get("Cu=4")
    assert row.status == "done" and row.converged
    assert row.energy == pytest.approx(ours.energy, abs=1e-12)
    np.testing.assert_allclose(row.toatoms().cell.array, ours.cell, atol=1e-12)


def test_other_tasks_keep_the_main_numbers(tmp_path):
    result = emt([bulk("Cu")], "elastic", tmp_path / "c.db", relax_ions=False)
    atoms = with_emt(bulk("Cu"))
    ours = elastic_constants(atoms, relax_ions=False, progress=False)
    (record,) = result.records()
    np.testing.assert_allclose(record["results"]["tensor"], ours.tensor, atol=1e-9)
    assert record["results"]["stable"] is True
    nitrogen = relaxed("N2")
    result = emt([nitrogen], "vibrations", tmp_path / "v.jsonl")
    assert len(result.records()[0]["results"]["frequencies"]) == 1


def relaxed(name):
    atoms = with_emt(molecule(name))
    return relax(atoms, fmax=1e-4, progress=False).atoms()


def test_bad_structures_are_reported_in_a_line_and_passed_over(tmp_path, caplog):
    folder = tmp_path / "cifs"
    folder.mkdir()
    for number, atoms in enumerate(metals(3)):
        write(folder / f"{number}.cif", atoms)
    (folder / "1.cif").write_text("this is no crystal")
    write(folder / "3.cif", bulk("W"))  # EMT does not know it
    with caplog.at_level(logging.WARNING):
        result = emt(folder, "evaluate", tmp_path / "out.jsonl")
    assert (result.n_done, result.n_failed) == (2, 2)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2 and not any("\n" in line for line in lines)
    assert any("1.cif@0" in line for line in lines)
    assert any("3.cif@0 (W)" in line and "EMT" in line for line in lines)
    assert "2 done, 2 failed" in result.summary()
    write(folder / "1.cif", metals(2)[1])  # mended: only this one and the other failure are done again
    again = emt(folder, "evaluate", tmp_path / "out.jsonl")
    assert (again.n_done, again.n_failed, again.n_earlier) == (1, 1, 2)


def test_sources_files_databases_patterns_and_duplicates(tmp_path):
    write(tmp_path / "a.extxyz", metals(3))
    with connect(tmp_path / "b.db") as db:
        for atoms in metals(2):
            db.write(atoms)
    source = [tmp_path / "a.extxyz", tmp_path / "b.db", bulk("Cu"), bulk("Cu")]
    result = emt(source, "evaluate", tmp_path / "x.jsonl")
    assert result.n_done == 7
    names = [record["name"] for record in result.records()]
    assert names[-1] == "structure 3" and names[0].endswith("a.extxyz@0")
    pattern = str(tmp_path / "*.extxyz")
    assert emt(pattern, "evaluate", tmp_path / "y.db").n_done == 3
    with pytest.raises(DataError, match="there is no structure file"):
        emt("nothing.cif", "evaluate", tmp_path / "z.db")


def test_a_frame_can_be_named_as_results_name_it(tmp_path):
    write(tmp_path / "a.extxyz", metals(3))
    whole = list(emt(tmp_path / "a.extxyz", "evaluate", tmp_path / "whole.jsonl").records())
    again = emt([whole[1]["name"], f"{tmp_path / 'a.extxyz'}@7"], "evaluate", tmp_path / "two.jsonl")
    one, missing = again.records()
    assert one["name"] == whole[1]["name"] and one["results"] == whole[1]["results"]
    assert "has no frame 7" in missing["error"]
    emt(tmp_path / "a.extxyz", "evaluate", tmp_path / "whole.db")
    with pytest.raises(ConfigError, match=r"whole\.db holds the structures and is the output"):
        emt(f"{tmp_path / 'whole.db'}@1", "evaluate", tmp_path / "whole.db")


def test_a_process_pool_gives_the_same_results(tmp_path):
    here = emt(metals(7), "relax", tmp_path / "one.jsonl")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        for ending in ("jsonl", "db"):
            there = emt(metals(7), "relax", tmp_path / f"two.{ending}", executor=pool)
            assert same_records(by_name(there.output), by_name(here.output))


@PARQUET
def test_parquet_has_columns_with_units_and_is_resumed(tmp_path):
    import pyarrow.parquet

    output = tmp_path / "out.parquet"
    words = {"calculator": EMT(), "output": output, "progress": False}
    screen(metals(3), "relax", fmax=0.05, **words)
    again = screen([*metals(5), Atoms("W")], "relax", fmax=0.05, **words)
    assert (again.n_earlier, again.n_done, again.n_failed) == (3, 2, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]
    table = pyarrow.parquet.read_table(output)
    assert table.schema.field("energy").metadata == {b"unit": b"eV"}
    records = read_screening(output)
    for row, record in zip(table.to_pylist(), records, strict=True):
        assert row["name"] == record["name"] and row["energy"] == record.get("results", {}).get("energy")
        assert row["positions"] == record.get("positions") and row["error"] == record.get("error")
    assert sum(record["status"] == "done" for record in records) == 5
    with pytest.raises(ConfigError, match="belongs to other work"):
        screen(metals(3), "relax", fmax=0.01, **words)
    (tmp_path / "no.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="was not written by `screen`"):
        screen(metals(3), "relax", fmax=0.05, **{**words, "output": tmp_path / "no.parquet"})


def test_parquet_without_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'dpa2calc\[parquet\]'"):
        emt(metals(1), "evaluate", tmp_path / "x.parquet")


def test_threads_have_a_calculator_each(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        result = emt(metals(14), "evaluate", tmp_path / "t.jsonl", executor=pool)
    alone = emt(metals(14), "evaluate", tmp_path / "o.jsonl")
    assert same_records(by_name(result.output), by_name(alone.output))


def test_a_dask_cluster_gives_the_same_results(tmp_path):
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        with pytest.raises(ConfigError, match=r"client.get_executor\(\)"):
            emt(metals(7), "relax", tmp_path / "d.jsonl", executor=client)
        there = emt(metals(7), "relax", tmp_path / "d.jsonl", executor=client.get_executor())
    here = emt(metals(7), "relax", tmp_path / "h.jsonl")
    assert same_records(by_name(there.output), by_name(here.output))


_KILLED = """
import sys, time
from ase.build import bulk
from ase.calculators.emt import EMT
from dpa2calc.applications import screen

class Slow(EMT):
    def calculate(self, *args, **kwargs):
        time.sleep(0.05)
        super().calculate(*args, **kwargs)

Slow.__name__ = "EMT"  # the identity of the run that resumes
frames = []
for seed in range(24):
    frames.append(bulk("Cu"))
    frames[-1].rattle(0.05, seed=seed)
screen(frames, "relax", calculator=Slow(), output=sys.argv[1], progress=False, max_steps=3)
"""


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_killed_run_resumes_with_what_it_had(ending, tmp_path):
    output = tmp_path / f"out.{ending}"
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(output)], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            if any(tmp_path.iterdir()) and len(_finished(output)) >= 2:
                break
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    if ending != "db":
        growing = output if ending == "jsonl" else tmp_path / "out.parquet.jsonl"
        with open(growing, "ab") as file:
            file.write(b'{"key": "half a rec')
    before = _finished(output)
    frames = rattled(bulk("Cu"), 24, 0.05)
    result = emt(frames, "relax", output, max_steps=3)
    assert result.n_earlier == len(before) >= 2
    assert result.n_done == 24 - len(before)
    whole = emt(frames, "relax", tmp_path / "whole.jsonl", max_steps=3)
    assert same_records(by_name(output), by_name(whole.output))


def _finished(path):
    try:
        return read_screening(path)
    except (DataError, ConfigError):  # not even begun
        return []


def test_wrong_words_are_refused_before_the_work(tmp_path):
    output = tmp_path / "out.db"
    with pytest.raises(ConfigError, match=r"unknown option f_max = 0.1; did you mean fmax\?"):
        emt(metals(1), "relax", output, f_max=0.1)
    with pytest.raises(ConfigError, match="the task 'evaluate' takes no options"):
        emt(metals(1), "evaluate", output, fmax=0.1)
    with pytest.raises(ConfigError, match="task = 'melt' is not allowed; allowed: evaluate, relax"):
        emt(metals(1), "melt", output)
    with pytest.raises(ConfigError, match=r"allowed: a name ending in .db, .jsonl or .parquet"):
        emt(metals(1), "evaluate", tmp_path / "out.csv")
    with pytest.raises(StructureError, match="no calculator"):
        screen(metals(1), "evaluate", output=output)
    with pytest.raises(DataError, match="structures cannot be a int"):
        emt(5, "evaluate", output)


class _Dies(EMT):
    def calculate(self, *args, **kwargs):
        import os

        os._exit(1)


def test_a_process_that_dies_is_named_with_the_way_to_resume(tmp_path):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with (
        ProcessPoolExecutor(1, mp_context=context) as pool,
        pytest.raises(ConfigError, match="call again with a new executor to resume"),
    ):
        screen(
            metals(2), "relax", calculator=_Dies(), executor=pool, output=tmp_path / "o.db", progress=False
        )


def test_jobs_carry_no_calculator(tmp_path, monkeypatch):
    """Weights travel once a job as one packed text that a worker unpacks once, not with each structure."""
    seen = []

    class Pool(ThreadPoolExecutor):
        def submit(self, function, payload, task, options, items):
            seen.extend(item.atoms.calc for item in items)
            return super().submit(function, payload, task, options, items)

    frames = metals(3)
    for atoms in frames:
        atoms.calc = EMT()
    with Pool(1) as pool:
        screen(frames, "evaluate", executor=pool, output=tmp_path / "o.jsonl", progress=False)
    assert seen == [None] * 3
    assert run_remotely.__module__.endswith("tasks")
    assert all(isinstance(atoms.calc, EMT) for atoms in frames) and isinstance(frames[0], Atoms)
