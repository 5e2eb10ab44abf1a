"""Result files: the class, version, fields and types are looked at."""

import shutil
import warnings

import numpy as np
import pytest
from ase.build import bulk
from emt_cases import with_emt
from rewriting import rewrite_arrays

from dpa2calc.applications import (
    AngularDistribution,
    EquationOfState,
    MDResult,
    RadialDistribution,
    radial_distribution,
    run_md,
)
from dpa2calc.errors import DataError
from dpa2calc.files.identity import structure_identity
from dpa2calc.files.results import error_text


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * 2
    result = radial_distribution([atoms, atoms], "Cu-Cu", r_max=3.5)
    return result.save(tmp_path_factory.mktemp("results") / "r.npz")


def values(**changes):
    return lambda h, a: h["values"].update(changes)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda h, a: a.update(__json__=np.array("[1]")), "no class, no values"),
        (lambda h, a: h.pop("class"), "no class, no values"),
        (lambda h, a: h.update({"class": 5}), "no class, no values"),
        (lambda h, a: h.update(values=[]), "no class, no values"),
        (
            lambda h, a: h.update({"class": "Phonons"}),
            "holds a Phonons, not a RadialDist.*; use Phonons.load",
        ),
        (lambda h, a: h.update(version=99), "version 99 of the result file, this dpa2calc reads version 1"),
        (lambda h, a: h.pop("version"), "version None of the result file"),
        (values(colour=1), "does not have the fields of a RadialDistribution, or .*unknown option colour"),
        (lambda h, a: h["values"].pop("g"), "g is missing"),
        (values(provenance={"__array__": "z"}), "is damaged"),
        (values(provenance={"a": 1}), "is damaged"),
        (values(provenance=[1]), "provenance = .* is not allowed; allowed: a table"),
        (values(g="high"), "g = 'high' is not allowed; allowed: an array"),
        (values(g=None), "g = None is not allowed; allowed: an array"),
        (values(pair={"__array__": "g"}), "is damaged"),
        (lambda h, a: a.pop("g"), "is damaged|missing"),
    ],
)
def test_what_save_does_not_write_is_refused(saved, tmp_path, change, text):
    path = shutil.copy(saved, tmp_path / "f.npz")
    rewrite_arrays(path, change)
    with pytest.raises(DataError, match=text):
        RadialDistribution.load(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"a" * 300])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "f.npz").write_bytes(content)
    for kind in (RadialDistribution, AngularDistribution, EquationOfState):
        with pytest.raises(DataError, match=rf"f\.npz is not a result file written by {kind.__name__}\.save"):
            kind.load(tmp_path / "f.npz")
    with pytest.raises(DataError, match="there is no file"):
        MDResult.load(tmp_path / "nothing.npz")


def test_a_small_error_is_not_shown_as_none():
    assert error_text(3.2e-6, ".4f") == "3e-06" and error_text(0.012, ".4f") == "0.0120"
    assert error_text(0.0, ".4f") == "0.0000" and error_text(np.nan) == "unknown"


def test_a_result_with_numbers_of_numpy_comes_back(tmp_path):
    atoms = with_emt(bulk("Cu", cubic=True))
    result = run_md(atoms, steps=np.int64(3), temperature=np.float32(100), progress=False)
    assert MDResult.load(result.save(tmp_path / "md.npz")).config == result.config


def test_a_result_knows_what_made_it_and_another_is_not_replaced_in_silence(tmp_path):
    atoms = with_emt(bulk("Cu", cubic=True))
    result = run_md(atoms, steps=2, progress=False)
    assert result.provenance["identity"]["structure"] == structure_identity(atoms)
    assert result.provenance["identity"]["calculator"]["class"] == "EMT"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            result.save(tmp_path / "md.npz")
    atoms.positions[0] += 0.01
    other = run_md(atoms, steps=2, progress=False)
    with pytest.warns(UserWarning, match=r"md\.npz held the result of another structure \(.*positions\)"):
        other.save(tmp_path / "md.npz")
    (tmp_path / "md.npz").write_text("something else")
    assert MDResult.load(other.save(tmp_path / "md.npz")).n_steps == 2
