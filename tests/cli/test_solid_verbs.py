"""The solid-state verbs from files to numbers, with EMT in place of weights."""

import json
import re
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.constraints import FixAtoms
from ase.io import read, write

from dpa2calc.applications.crystals.elastic import ElasticConstants
from dpa2calc.applications.defects.surface import SurfaceEnergy
from dpa2calc.applications.defects.vacancy import VacancyFormation, vacancy_hop
from dpa2calc.applications.molecules.vibrations import Vibrations
from dpa2calc.cli.main import main


@pytest.fixture
def copper(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("Cu.extxyz", bulk("Cu", a=3.6))
    return ["--structure", "Cu.extxyz", "--calculator", "emt", "--no-progress"]


def number(text, label):
    return float(re.search(rf"{label}\s+(-?[\d.]+)", text).group(1))


def test_eos(copper, capsys, tmp_path):
    assert main(["eos", *copper, "--points", "7"]) == 0
    text = capsys.readouterr().out
    assert number(text, "bulk modulus") == pytest.approx(134.2, abs=0.4)
    assert (tmp_path / "eos" / "Cu" / "eos.png").stat().st_size > 5000


def test_elastic(copper, capsys):
    assert main(["elastic", *copper, "--out", "result"]) == 0
    assert number(capsys.readouterr().out, "C44") == pytest.approx(89.9, abs=0.1)
    assert ElasticConstants.load("result/elastic.npz").stable


def test_phonons(copper, capsys, tmp_path):
    pytest.importorskip("phonopy")
    import phonopy

    assert main(["phonons", *copper, "--min-length", "7", "--mesh", "20"]) == 0
    text = capsys.readouterr().out
    assert "no imaginary modes" in text
    stored = phonopy.load(str(tmp_path / "phonons" / "Cu" / "phonopy.yaml"), produce_fc=False)
    stored.run_qpoints([[0.5, 0.5, 0.0]])  # X
    assert stored.qpoints.frequencies[0].max() == pytest.approx(number(text, "highest frequency"), rel=0.02)


def test_neb(copper, capsys):
    initial, final = vacancy_hop(bulk("Cu", a=3.59), min_length=7.0)
    write("a.extxyz", initial)
    write("b.extxyz", final)
    options = ["--structure", "a.extxyz", "--final", "b.extxyz", "--calculator", "emt", "--no-progress"]
    assert main(["neb", *options, "--images", "3", "--fmax", "0.05"]) == 0
    text = capsys.readouterr().out
    images = read("neb/a-b/path.extxyz", ":")
    energies = [image.get_potential_energy() for image in images]
    assert max(energies) - energies[0] == pytest.approx(number(text, "barrier forward"), abs=1e-4)
    with pytest.warns(UserWarning, match="not converged"):
        assert main(["neb", *options, "--images", "5", "--max-steps", "1", "--out", "short"]) == 1


def test_vibrations(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("N2.xyz", molecule("N2"))
    words = ["vibrations", "N2.xyz", "--calculator", "emt", "--no-progress", "--temperature", "300"]
    assert main([*words, "--symmetry-number", "2", "--json", "a.json"]) == 0
    text = capsys.readouterr().out
    result = Vibrations.load("vibrations/N2/vibrations.npz")
    assert len(result.frequencies) == 1 and result.n_imaginary == 0
    told = float(re.search(r"free energy at 300 K \(Gibbs, ideal gas\): (-?[\d.]+) eV", text).group(1))
    assert told == pytest.approx(result.free_energy(300, symmetry_number=2), abs=1e-4)
    values = json.loads(Path("a.json").read_text())["values"]
    assert (values["temperature_K"], values["free_energy_kind"]) == (300.0, "Gibbs, ideal gas")
    assert values["free_energy_eV"] == pytest.approx(told, abs=1e-4)
    movie = read("vibrations/N2/mode-1.extxyz", ":")
    stretched = [frame.get_distance(0, 1) for frame in movie]
    assert max(stretched) - min(stretched) == pytest.approx(1.2, abs=0.01)  # 0.3 Å each, both ways
    assert (tmp_path / "vibrations" / "N2" / "vibrations.png").stat().st_size > 5000


def test_vibrations_of_a_saddle_say_so_and_keep_their_movies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("chain.xyz", Atoms("Cu3", [[0, 0, 0], [2.3, 0, 0], [4.6, 0, 0]]))
    words = ["vibrations", "chain.xyz", "--calculator", "emt", "--no-progress", "--temperature", "300"]
    assert main(words) == 1
    told = "dpa2calc vibrations: 2 modes are imaginary, so this is no minimum; relax the structure further\n"
    assert capsys.readouterr().err == told
    assert len(list(Path("vibrations/chain").glob("mode-*.extxyz"))) == 4


def test_surface(copper, capsys, tmp_path):
    assert main(["surface", *copper, "--thicknesses", "6", "8", "--vacuum", "8", "--unrelaxed"]) == 0
    result = SurfaceEnergy.load("surface/Cu-111/surface.npz")
    assert number(capsys.readouterr().out, "  unrelaxed") == pytest.approx(result.unrelaxed_energy, abs=1e-3)
    assert read("surface/Cu-111/slab.extxyz").cell[2, 2] > 14
    assert (tmp_path / "surface" / "Cu-111" / "surface.png").stat().st_size > 5000


def test_vacancy(copper, capsys, tmp_path):
    assert main(["vacancy", *copper, "--lengths", "5", "7", "--fmax", "0.01"]) == 0
    result = VacancyFormation.load("vacancy/Cu-0/vacancy.npz")
    assert 1.0 < result.energy < 1.4  # eV; experiment 1.28
    assert len(read("vacancy/Cu-0/defect.extxyz")) == result.n_atoms[-1] - 1
    assert (tmp_path / "vacancy" / "Cu-0" / "vacancy.png").stat().st_size > 5000
    with pytest.raises(SystemExit):
        main(["vacancy", *copper, "--chemical-potential", "O"])
    assert "give ELEMENT=EV" in capsys.readouterr().err


def test_the_structure_may_come_first_or_by_name(copper, capsys):
    assert main(["eos", "Cu.extxyz", "--calculator", "emt", "--no-progress", "--points", "7"]) == 0
    first = number(capsys.readouterr().out, "bulk modulus")
    assert main(["eos", *copper, "--points", "7", "--out", "other"]) == 0
    assert number(capsys.readouterr().out, "bulk modulus") == first
    assert main(["eos", "--calculator", "emt"]) == 1
    assert "name a structure file" in capsys.readouterr().err


def test_atoms_that_the_file_holds_do_not_vibrate(tmp_path, monkeypatch, capsys):
    """Selective dynamics of VASP; the free energy is that of atoms on a support, not of a gas."""
    monkeypatch.chdir(tmp_path)
    slab = fcc111("Cu", (2, 2, 2), vacuum=6.0)
    add_adsorbate(slab, "O", 1.2, "fcc")
    slab.set_constraint(FixAtoms(range(8)))
    write("POSCAR", slab, format="vasp")
    words = (
        "vibrations POSCAR --calculator emt --no-progress --temperature 300 --out held --json v.json".split()
    )
    assert main([*words, "--spin", "1"]) == 1
    assert (
        "--spin has no effect where some atoms move, whose free energy is harmonic" in capsys.readouterr().err
    )
    assert main(words) == 0
    text = capsys.readouterr()
    assert "3 modes" in text.out and "(Helmholtz, harmonic)" in text.out and "warning" not in text.err
    values = json.loads(Path("v.json").read_text())["values"]
    assert len(values["indices"]) == 1 and values["free_energy_kind"] == "Helmholtz, harmonic"
