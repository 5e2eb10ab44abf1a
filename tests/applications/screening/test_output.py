"""The file that a screening writes: whose it is, and what a stopped run left in it."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from ase.io import write
from emt_cases import metals
from screening_cases import ENDINGS, by_name, emt

from dpa2calc.applications import read_screening
from dpa2calc.errors import ConfigError, DataError, OutputError


def test_another_task_calculator_or_option_is_refused(tmp_path):
    output = tmp_path / "out.jsonl"
    emt(metals(1), "relax", output, fmax=0.05)
    with pytest.raises(ConfigError, match=r"task: fmax \(0.05 -> 0.01\)"):
        emt(metals(1), "relax", output, fmax=0.01)
    with pytest.raises(ConfigError, match="belongs to other work"):
        emt(metals(1), "evaluate", output)
    (tmp_path / "other.jsonl").write_text(json.dumps({"mine": 1}) + "\n")
    with pytest.raises(DataError, match="was not written by `screen`"):
        emt(metals(1), "relax", tmp_path / "other.jsonl")


@pytest.mark.parametrize(
    "content", ['{"mine": 1}', '{"mine": 1}\n{"mine": 2}', "a note", "{a half note", "\xff"]
)
def test_a_file_of_others_is_refused_and_left_as_it_is(content, tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match="another output"):
        emt(metals(1), "evaluate", path)
    assert path.read_bytes() == content.encode("latin-1")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("task", ["evaluate", "relax"])
def test_what_is_not_finite_stops_no_output(task, ending, tmp_path):
    """Not in what a structure carries, which is kept; in positions, energy or forces it is a failure."""
    carries, lost, overlaps, good = metals(4)
    carries.set_array("shift", np.arange(len(carries)) + np.nan)
    carries.set_masses(np.full(len(carries), np.nan))
    lost.positions[0, 2] = np.inf
    overlaps = Atoms("Cu2", positions=np.zeros((2, 3)))
    path = tmp_path / f"out.{ending}"
    summary = emt([carries, lost, Atoms(), overlaps, good], task, path)
    assert (summary.n_done, summary.n_failed) == (2, 3)
    first, *failures, last = by_name(path).values()
    assert first["attached"]["arrays"]["shift"] == [None] * len(carries)
    for record, text in zip(failures, ("NaN or infinity", "has no atoms", "NaN")):
        assert record["status"] == "failed" and text in record["error"]
    energies = [record["results"]["energy"] for record in (first, last)]
    assert np.isfinite(energies).all()
    if ending == "db":
        rows = list(connect(path).select(status="done"))
        assert [row.energy for row in rows] == energies


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_kill_before_the_first_record_is_resumed_from(ending, tmp_path):
    path = tmp_path / f"out.{ending}"
    emt(metals(2), "evaluate", path)
    whole = by_name(path)
    if ending == "db":
        path.unlink()
        with connect(path, use_lock_file=False):  # makes the tables
            pass
    else:
        growing = tmp_path / ("out.jsonl" if ending == "jsonl" else "out.parquet.jsonl")
        if ending == "parquet":
            emt(metals(1), "evaluate", tmp_path / "a.jsonl")
            path.unlink()
            (tmp_path / "a.jsonl").rename(growing)
        growing.write_bytes(growing.read_bytes()[:100])
    result = emt(metals(2), "evaluate", path)
    assert result.n_done == 2 and by_name(path).keys() == whole.keys()


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_output_among_the_structures_is_none_of_them(ending, tmp_path):
    for number, atoms in enumerate(metals(3)):
        write(tmp_path / f"{number}.xyz", atoms, format="extxyz")
    output = tmp_path / f"out.{ending}"
    for source in (tmp_path, tmp_path / "*"):
        again = emt(source, "evaluate", output)
        assert len(read_screening(output)) == 3 and not again.failures
    with pytest.raises(ConfigError, match="the output as well; give another output"):
        emt(output, "evaluate", output)


@pytest.mark.skipif(os.name != "posix", reason="limits of files")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("room", [3_000, 20_000, 41_000])
def test_a_full_disk_is_said_and_resumed_from(room, ending, tmp_path):
    """A limit on the size of files stands for the disk: it ends at the header, or among the records."""
    import resource

    path, structures = tmp_path / f"out.{ending}", metals(40)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        emt(structures, "evaluate", path)
    except OutputError as error:
        assert re.search(r"out\.\w+(\.jsonl)? cannot be written: .*; free some space", str(error))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    result = emt(structures, "evaluate", path)
    assert result.n_done + result.n_earlier == 40 == len(by_name(path))


_POOL = """
import os, time
from dpa2calc.cli.verbs.solids.screen import _executor

if __name__ == "__main__":
    print(_executor(2).submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_processes_end_with_a_screening_that_is_killed(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(_POOL)
    # its workers hold the pipe too, so that it is read to its end when the last of them is gone
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as main:
        worker = int(main.stdout.readline())
        assert worker != main.pid
        main.kill()
        main.communicate(timeout=30)
