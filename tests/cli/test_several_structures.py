"""Several files in one call: each done by itself, under a name of its own; a bad one stops nothing."""

import pytest
from ase.build import bulk
from ase.io import write

from dpa2calc.cli.arguments import structures
from dpa2calc.cli.main import main


def test_each_structure_gets_its_own_results(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for metal in ("Cu", "Ag"):
        write(f"{metal}.cif", bulk(metal))
    write("W.cif", bulk("W"))  # EMT does not know it
    words = ["--calculator", "emt", "--relax", "fixed", "--no-progress"]
    assert main(["eos", "Cu.cif", "nothing.cif", "Ag.cif", *words]) == 1
    found = capsys.readouterr()
    assert "nothing.cif" in found.err and len(found.err.strip().splitlines()) == 1
    assert all((tmp_path / "eos" / metal / "eos.npz").is_file() for metal in ("Cu", "Ag"))
    assert found.out.count("bulk modulus") == 2


@pytest.mark.parametrize("option", ["--out", "--json"])
def test_a_name_for_one_result_is_refused(option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", bulk("Cu"))
    assert main(["relax", "Cu.cif", "Cu.cif", "--calculator", "emt", option, "x"]) == 1
    assert f"{option} names a file of one structure" in capsys.readouterr().err


def test_results_of_one_name_are_refused_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder, cubic in (("a", True), ("b", False)):
        (tmp_path / folder).mkdir()
        write(f"{folder}/Cu.cif", bulk("Cu", cubic=cubic))
        write(f"{folder}/POSCAR", bulk("Cu", cubic=cubic))  # named after its folder
    words = ["--calculator", "emt", "--no-progress"]
    assert main(["relax", "a/Cu.cif", "b/Cu.cif", *words]) == 1
    assert "a/Cu.cif and b/Cu.cif would both be written as Cu" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert main(["relax", "a/POSCAR", "b/POSCAR", *words]) == 0


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "Ag.cif"), "Ag.cif: Permission denied; check the disk"),
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("CUDA out of memory"), "there is not enough memory"),
    ],
)
def test_what_one_structure_meets_stops_no_other(error, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for metal in ("Ag", "Cu"):
        write(f"{metal}.cif", bulk(metal))
    reading = structures.read_frame

    def read_frame(path, index=None):
        if path == "Ag.cif":
            raise error
        return reading(path, index)

    monkeypatch.setattr(structures, "read_frame", read_frame)
    assert main(["relax", "Ag.cif", "Cu.cif", "--calculator", "emt", "--no-progress"]) == 1
    assert f"Ag.cif: {message}" in capsys.readouterr().err
    assert (tmp_path / "Cu-relaxed.extxyz").is_file()


def test_a_fault_of_the_program_is_not_hidden(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(structures, "read_frame", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["relax", "Ag.cif", "Cu.cif", "--calculator", "emt"])
