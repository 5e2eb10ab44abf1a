"""A trajectory of a relaxation belongs to one structure, calculator and set of options."""

import warnings

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read, write
from emt_cases import with_emt

from dpa2calc.applications import relax
from dpa2calc.errors import ConfigError, DataError, OutputError
from dpa2calc.files.lock import locked


def rattled():
    atoms = with_emt(bulk("Cu", cubic=True, a=3.7))
    atoms.rattle(0.1, seed=1)
    return atoms


def quiet(atoms, **options):
    return relax(atoms, progress=False, **options)


CHANGES = {
    "structure: positions": lambda a: a.positions.__setitem__((0, 0), a.positions[0, 0] + 0.01),
    "structure: masses": lambda a: a.set_masses([70.0] * len(a)),
    "structure: constraints": lambda a: a.set_constraint(FixAtoms([1])),
    "calculator: parameters": lambda a: setattr(a, "calc", EMT(asap_cutoff=True)),
}
SUFFIXES = pytest.mark.parametrize("suffix", ["traj", "extxyz"])


@SUFFIXES
@pytest.mark.parametrize("named", CHANGES)
def test_a_trajectory_of_another_structure_or_calculator_is_refused(tmp_path, suffix, named):
    path = tmp_path / f"relax.{suffix}"
    quiet(rattled(), trajectory=path)
    other = rattled()
    CHANGES[named](other)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=rf"belongs to other work; different are .*{named}.*overwrite=True"):
        quiet(other, trajectory=path)
    assert path.read_bytes() == before


@SUFFIXES
def test_limits_and_the_optimiser_may_change_and_the_cell_may_not(tmp_path, suffix):
    path = tmp_path / f"relax.{suffix}"
    quiet(rattled(), trajectory=path, fmax=0.5)
    result = quiet(rattled(), trajectory=path, fmax=0.01, optimizer="fire", max_steps=np.int64(300))
    assert result.converged and result.step[0] > 0
    with pytest.raises(ConfigError, match=r'options: cell \("fixed" -> "full"\)'):
        quiet(rattled(), trajectory=path, relax="cell")
    with pytest.raises(ConfigError, match=r'options: keep symmetry \("False" -> "True"\)'):
        quiet(rattled(), trajectory=path, keep_symmetry=True)


def _without_identity(path):
    frames = read(path, ":")
    for frame in frames:
        del frame.info["belongs_to"]
    write(path, frames)


@SUFFIXES
def test_trajectories_of_earlier_versions(tmp_path, suffix):
    """They tell the structure by their first frame."""
    path = tmp_path / f"relax.{suffix}"
    quiet(rattled(), trajectory=path, fmax=0.5)
    _without_identity(path)
    other = rattled()
    other.positions[0] += 0.1
    with pytest.raises(DataError, match="begins with another structure"):
        quiet(other, trajectory=path)
    with pytest.warns(UserWarning, match="did not note the calculator and the options") as found:
        quiet(rattled(), trajectory=path)
    assert len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert quiet(rattled(), trajectory=path, fmax=0.005).converged


@SUFFIXES
@pytest.mark.parametrize("cut", [0, 100, 30])
def test_what_a_kill_leaves_is_resumed_from(tmp_path, suffix, cut):
    """An empty file, or the begin of a frame after whole ones."""
    path = tmp_path / f"relax.{suffix}"
    quiet(rattled(), trajectory=path, fmax=0.5)
    steps = len(read(path, ":"))
    content = path.read_bytes()
    path.write_bytes(content + content[-cut:] if cut else b"")
    if cut and suffix == "extxyz":
        path.write_bytes(content + b"4\nLattice=" + content[:cut])
    result = quiet(rattled(), trajectory=path)
    assert result.converged and result.step[0] == (steps - 1 if cut else 0)
    assert [frame.info["step"] for frame in read(path, ":")] == list(range(result.n_steps + 1))


@SUFFIXES
@pytest.mark.parametrize(
    "damage", [b"\0" * 300, b"4\nabc", b"1000000000000\n", b"-5\n", b"- of UlmASE-Trajectory  "]
)
def test_other_files_are_refused_as_trajectories(tmp_path, suffix, damage):
    path = tmp_path / f"relax.{suffix}"
    path.write_bytes(damage)
    with pytest.raises(DataError, match=r"relax\.\w+ is no trajectory, or is damaged .*overwrite=True"):
        quiet(rattled(), trajectory=path)
    assert path.read_bytes() == damage
    assert quiet(rattled(), trajectory=path, overwrite=True).converged


@SUFFIXES
def test_a_second_relaxation_and_a_place_that_cannot_be_written(tmp_path, suffix):
    path = tmp_path / f"relax.{suffix}"
    with locked(path), pytest.raises(ConfigError, match="another run is writing to"):
        quiet(rattled(), trajectory=path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        quiet(rattled(), trajectory=tmp_path / "file" / f"a.{suffix}")
