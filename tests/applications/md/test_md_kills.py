"""A run that is killed, or whose disk is full, at any operation on files: the same command resumes it."""

import os
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.io import read

from dpa2calc.applications import run_md
from dpa2calc.dynamics.files import LogWriter
from dpa2calc.dynamics.frames import FrameWriter
from dpa2calc.errors import OutputError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
STEPS = 12
EVENTS = ("open", "os.rename", "os.truncate", "os.remove", "os.mkdir")


class Well(Calculator):
    """Atoms in harmonic wells about the origin: as cheap as forces can be."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions
        self.results = {"energy": 0.5 * float((x**2).sum()), "forces": -x}


def run(folder, suffix, restart_seconds=0):
    atoms = Atoms("Ar3", positions=[[0, 0, 0], [3, 0, 0], [0, 3.5, 0]], cell=[9, 9, 9], pbc=True)
    atoms.calc = Well()
    return run_md(
        atoms, steps=STEPS, temperature=20, sync_interval=4, restart_seconds=restart_seconds, log_interval=2,
        trajectory_interval=3, trajectory=folder / f"run.{suffix}", log=folder / "run.csv",
        restart=folder / "run.npz", progress=False,
    )  # fmt: skip


def in_a_child(work):
    """Exit status of a forked process: 0 done, 7 the package's OutputError, 1 any other error, 9 killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except OutputError:
            status = 7
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(number, folder, suffix):
    """Run in a child that dies before its operation `number` on files of the folder."""
    left = [number]

    def count():
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)

    def hook(event, arguments):
        if event in EVENTS and str(arguments[0]).startswith(str(folder)):
            count()

    def counted(method):
        def call(*arguments):
            count()
            return method(*arguments)

        return call

    def work():
        sys.addaudithook(hook)
        FrameWriter.write = counted(FrameWriter.write)
        LogWriter._put = counted(LogWriter._put)
        run(folder, suffix)

    return in_a_child(work)


def assert_whole(folder, suffix, whole, restart_seconds=0):
    again = run(folder, suffix, restart_seconds)
    assert again.status == "finished" and again.step.tolist() == list(range(0, STEPS + 1, 2))
    assert np.array_equal(again.positions, whole.positions)
    assert np.array_equal(again.total_energy, whole.total_energy)
    assert (folder / "run.csv").read_bytes() == open(whole.log, "rb").read()
    assert [frame.info["step"] for frame in read(folder / f"run.{suffix}", ":")] == [0, 3, 6, 9, 12]
    assert not [path.name for path in folder.iterdir() if "partial" in path.name and "npz" not in path.name]


@pytest.mark.parametrize("suffix", ["traj", "extxyz"])
def test_a_kill_at_any_operation_on_files(tmp_path, suffix):
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", suffix)
    number, status, killed = 0, 9, 0
    while status == 9:
        folder = tmp_path / f"{number}"
        folder.mkdir()
        status = kill_at(number, folder, suffix)
        assert status in (0, 9)
        assert_whole(folder, suffix, whole)
        killed += status == 9
        number += 1 if number < 16 else 5  # everything about the first restart file, then samples
    assert killed > 20


@pytest.mark.parametrize("suffix", ["traj", "extxyz"])
@pytest.mark.parametrize("part", ["restart", "trajectory", "log", "everything but the end"])
def test_a_full_disk_is_said_and_resumed_from(tmp_path, part, suffix):
    """A limit on the size of files stands for the disk; the restart file is the largest from the start."""
    import resource

    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = run(tmp_path / "whole", suffix, restart_seconds=1e9)
    sizes = {name: os.path.getsize(getattr(whole, name)) for name in ("restart", "trajectory", "log")}
    limit = sizes[part] // 2 if part in sizes else max(sizes.values()) - 1

    def work():
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        if part in ("trajectory", "log"):  # the others are smaller or larger than it
            writer = FrameWriter if part == "trajectory" else LogWriter
            method = writer.write

            def write(self, item):
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
                try:
                    method(self, item)
                    self.sync()
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

            writer.write = write
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        run(tmp_path / "parts", suffix, restart_seconds=1e9)

    assert in_a_child(work) == 7
    assert_whole(tmp_path / "parts", suffix, whole, restart_seconds=1e9)
