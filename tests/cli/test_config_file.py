"""`--config FILE`: options from TOML under those of the command line, with the same checks."""

import argparse

import pytest
from ase.build import bulk
from ase.io import write

from dpa2calc.cli.arguments.config_file import with_config
from dpa2calc.cli.main import build_parser, main
from dpa2calc.errors import ConfigError
from dpa2calc.files.options import with_home


@pytest.fixture
def parser():
    made = argparse.ArgumentParser()
    made.add_argument("structure")
    made.add_argument("--fmax", type=float, default=0.01)
    made.add_argument("--relax", choices=("positions", "cell"), default="positions")
    made.add_argument("--strains", type=float, nargs="+", default=[0.01])
    made.add_argument("--keep-symmetry", action="store_true")
    made.add_argument("--clamped-ions", dest="relax_ions", action="store_false")
    made.add_argument("--compress", action=argparse.BooleanOptionalAction)
    return made


def parsed(parser, path, text, *words):
    path.write_text(text)
    return parser.parse_args(with_config([*words, "--config", str(path)], parser))


def test_a_file_gives_defaults_and_the_command_line_comes_first(parser, tmp_path):
    text = 'structure = "Cu.cif"\nfmax = 0.5\nrelax = "cell"\nstrains = [0.1, 0.2]\nkeep-symmetry = true\n'
    text += "clamped-ions = true\ncompress = false\n"
    found = parsed(parser, tmp_path / "a.toml", text, "--relax", "positions")
    assert vars(found) == {
        "structure": "Cu.cif", "fmax": 0.5, "relax": "positions", "strains": [0.1, 0.2],
        "keep_symmetry": True, "relax_ions": False, "compress": False,
        "in_file": ("structure", "fmax", "relax", "strains", "keep_symmetry", "relax_ions", "compress"),
        "options_file": str(tmp_path / "a.toml"),
    }  # fmt: skip
    assert parsed(parser, tmp_path / "a.toml", "", "Si.cif").structure == "Si.cif"
    assert with_config(["Si.cif", "--fmax", "1"], parser) == ["Si.cif", "--fmax", "1"]


def test_a_list_of_values_does_not_swallow_the_structure(parser, tmp_path):
    found = parsed(parser, tmp_path / "a.toml", "strains = [0.1, 0.2]", "Si.cif")
    assert (found.structure, found.strains) == ("Si.cif", [0.1, 0.2])


@pytest.mark.parametrize(
    ("verb", "text", "words", "name", "value"),
    [
        ("md", "steps = 100", "a.cif", "steps", 100),  # an option that has to be given
        ("md", "steps = 100", "a.cif --steps 5", "steps", 5),
        ("screen", 'structures = ["a.cif", "b.cif"]', "", "structures", ["a.cif", "b.cif"]),
        ("screen", 'structures = "a.cif"', "b.cif", "structures", ["b.cif"]),
        ("screen", 'option = "fmax=1"', "a.cif --option relax=cell", "options", ["fmax=1", "relax=cell"]),
        ("screen", 'option = ["fmax=1", "relax=cell"]', "a.cif", "options", ["fmax=1", "relax=cell"]),
        ("lammps", 'var = ["T", 300]', "in.x", "var", [["T", "300"]]),
        ("lammps", 'var = [["T", 300], ["n", 1, 2]]', "in.x", "var", [["T", "300"], ["n", "1", "2"]]),
        ("relax", "no-compress = true", "a.cif", "compress", False),
        ("relax", "no_compress = false", "a.cif", "compress", True),
        ("relax", 'structure = "a.cif"', "--structure b.cif", "structure", "b.cif"),
        ("surface", "unrelaxed = true", "a.cif", "relax", "fixed"),
        ("surface", "unrelaxed = false", "a.cif", "relax", "positions"),
    ],
)
def test_every_kind_of_option_of_the_verbs(verb, text, words, name, value, tmp_path):
    path = tmp_path / "options.toml"
    path.write_text(text)
    parser = build_parser(verb)
    own = parser._subparsers._group_actions[0].choices[verb]
    rest = with_config([*words.split(), "--config", str(path)], own)
    assert getattr(parser.parse_args([verb, *rest]), name) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f_max = 1.0", r"unknown option f_max = 1.0; did you mean fmax\?"),
        ('fmax = "much"', "invalid float value: 'much'"),
        ('relax = "all"', "invalid choice: 'all'"),
        ("fmax = [1.0, 2.0]", "is not allowed"),
        ("fmax = true", "True is not allowed"),
        ("keep-symmetry = 3", "3 is not allowed; allowed: true or false"),
        ("fmax = = 1", "a.toml"),
    ],
)
def test_wrong_files_are_refused_by_name(parser, tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        parsed(parser, tmp_path / "a.toml", text, "Si.cif")


def test_the_home_folder_is_meant_where_no_shell_says_so(parser, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parsed(parser, tmp_path / "a.toml", 'structure = "~/Cu.cif"').structure == f"{tmp_path}/Cu.cif"
    words = ["--out=~/runs", "~", "~/a b", "a~/b", "--x=~other/b", "~other", "--note=a~/b"]
    assert with_home(words) == [f"--out={tmp_path}/runs", str(tmp_path), f"{tmp_path}/a b", *words[3:]]
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", bulk("Cu", cubic=True))
    words = ["relax", "--structure=~/Cu.cif", "--out=~/new/a.cif", "--calculator", "emt", "--no-progress"]
    assert main(words) == 0
    assert (tmp_path / "new/a.cif").exists() and not (tmp_path / "~").exists()


def test_options_without_effect_are_refused_in_a_file_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", bulk("Cu", cubic=True))
    (tmp_path / "a.toml").write_text("smax-gpa = 0.5\n")
    assert main(["relax", "Cu.cif", "--calculator", "emt", "--config", "a.toml"]) == 1
    assert "--smax-gpa has no effect where the cell does not change" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--quasi-harmonic", "--quasi"])
def test_of_options_that_exclude_each_other_the_command_line_holds(word, tmp_path):
    path = tmp_path / "a.toml"
    parser = build_parser("phonons")
    own = parser._subparsers._group_actions[0].choices["phonons"]
    path.write_text("convergence = true\nquasi-harmonic = false\n")
    found = parser.parse_args(["phonons", *with_config(["a.cif", word, "--config", str(path)], own)])
    assert (found.quasi_harmonic, found.convergence) == (True, False)
    assert "convergence" not in (found.in_file if "in_file" in found else ())


def test_a_file_that_names_two_of_one_kind_is_refused(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("convergence = true\nquasi-harmonic = true\n")
    own = build_parser("phonons")._subparsers._group_actions[0].choices["phonons"]
    with pytest.raises(ConfigError, match="convergence and quasi-harmonic exclude each other; keep one"):
        with_config(["a.cif", "--config", str(path)], own)
    path.write_text("convergence = true\nquasi-harmonic = false\n")
    assert with_config(["a.cif", "--config", str(path)], own) == ["a.cif"]
    assert own.get_default("convergence") is True


def test_a_missing_name_or_file_is_said(parser, tmp_path):
    with pytest.raises(ConfigError, match="--config needs the name of a TOML file"):
        with_config(["Si.cif", "--config"], parser)
    with pytest.raises(ConfigError, match=r"none\.toml"):
        with_config(["--config=none.toml"], parser)


def test_a_verb_with_a_file_of_its_own_takes_it_as_that():
    parser = argparse.ArgumentParser()
    parser.add_argument("config", nargs="?")
    assert with_config(["--config", "run.toml", "--steps", "3"], parser) == ["run.toml", "--steps", "3"]
