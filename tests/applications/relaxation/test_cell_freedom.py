"""The words for what moves: the same in every function, those of earlier versions taken with a warning."""

import json
import warnings
from typing import get_args

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read
from emt_cases import with_emt

from dpa2calc.applications import MDConfig, equation_of_state, phonons, relax, run_md, vibrations
from dpa2calc.applications.relaxation.cell_freedom import CellFreedom, moving, stress_left
from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.dynamics.words import RENAMED, current_word, earlier_word
from dpa2calc.errors import ConfigError
from dpa2calc.files.arrays import read_arrays, write_arrays
from dpa2calc.training import MDCondition


def copper():
    atoms = with_emt(bulk("Cu", cubic=True, a=3.7))
    atoms.set_cell([3.7, 3.75, 3.8], scale_atoms=True)
    return atoms


def test_what_is_free_is_what_changes():
    lengths = copper().cell.lengths()
    for free in get_args(CellFreedom)[1:]:
        atoms = copper()
        Relaxation(fmax=1e-3, free=free).run(atoms, what="test")
        changed = atoms.cell.lengths() / lengths
        assert (np.ptp(changed) < 1e-9) == (free in ("positions", "volume")), free
        assert (abs(changed.prod() - 1) < 1e-6) == (free in ("positions", "shape")), free
        assert stress_left(atoms, free) < 0.05
    assert moving(atoms, "positions") is atoms


@pytest.mark.parametrize("old", ["fixed", "isotropic", "axes", "shape", "full"])
def test_relax_takes_the_option_of_earlier_versions(old):
    word = RENAMED.get(old, old)
    with pytest.warns(
        FutureWarning, match=f"^cell='{old}' is now relax='{word}'; the earlier option"
    ) as seen:
        before = relax(copper(), cell=old, progress=False)
    assert len(seen) == 1 and seen[0].filename == __file__
    now = relax(copper(), relax=word, progress=False)
    assert before.cell_freedom == now.cell_freedom == word
    np.testing.assert_array_equal(before.cell, now.cell)
    with pytest.raises(ConfigError, match="cell = 'free' is not allowed; allowed: positions, volume"):
        relax(copper(), cell="free", progress=False)


@pytest.mark.parametrize(
    ("call", "old", "new"),
    [
        (lambda: equation_of_state(bulk_copper(), relax="none", progress=False), "relax='none'", "fixed"),
        (
            lambda: vibrations(bulk_copper(), indices=[0], relax="none", progress=False),
            "relax='none'",
            "fixed",
        ),
        (lambda: phonons(bulk_copper(), relax="none", min_length=5, progress=False), "relax='none'", "fixed"),
        (lambda: MDConfig(steps=1, cell_motion="full"), "cell_motion='full'", "cell"),
        (lambda: MDCondition(cell="isotropic"), "md.cell='isotropic'", "volume"),
    ],
)
def test_earlier_words_are_taken_with_a_warning(call, old, new):
    with pytest.warns(FutureWarning, match=f"{old} is now .*={new!r}"):
        call()


def bulk_copper():
    return with_emt(bulk("Cu", cubic=True, a=3.59))


def test_words_of_today_are_taken_silently_and_others_left_to_the_check():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for word in get_args(CellFreedom):
            assert current_word(word, get_args(CellFreedom), "relax") == word
        assert current_word("none", ("auto", "none"), "drift") == "none"
        assert current_word(None, ("cell",), "relax") is None and current_word("x", ("cell",), "relax") == "x"
    assert [earlier_word(w) for w in ("positions", "volume", "cell", "axes")] == [
        "fixed", "isotropic", "full", "axes"
    ]  # fmt: skip


def test_folders_and_files_of_earlier_versions_are_found(tmp_path):
    words = {free: Relaxation(fmax=0.1, free=free).key() for free in ("positions", "shape", "cell")}
    for free, old in (("positions", "fixed"), ("shape", "volume"), ("cell", "free")):
        expected = {"fmax": 0.1, "cell": old, "max_steps": 500, "symmetry": False, "symprec": 1e-3}
        assert words[free] == expected
    relax(copper(), relax="cell", trajectory=tmp_path / "a.traj", progress=False)
    assert "options.cell=full;" in read(tmp_path / "a.traj").info["belongs_to"]
    # a restart file holds the options as they were written
    path, options = tmp_path / "a.npz", {"ensemble": "npt", "temperature": 100, "sync_interval": 2}
    run_md(copper(), steps=4, restart=path, progress=False, **options)
    header, arrays = read_arrays(path, "a restart file")
    header["config"]["cell_motion"] = "isotropic"
    write_arrays(path, json.loads(json.dumps(header)), arrays, compress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        assert run_md(copper(), steps=6, restart=path, progress=False, **options).n_steps == 6


def test_a_large_skewed_cell_relaxes_without_a_word_of_scipy():
    """Its matrix logarithm warns of errors of 1e-12."""
    atoms = with_emt(bulk("Cu", a=3.6).repeat((4, 4, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = relax(atoms, relax="cell", progress=False, fmax=1e-4, smax_gpa=1e-4)
    assert result.converged and result.atoms().get_volume() / 64 == pytest.approx(11.5654, abs=1e-3)
