"""`--config FILE`: options from TOML under those of the command line, with the same checks."""

import argparse

import pytest

from dpa2calc.cli.arguments.config_file import with_config
from dpa2calc.errors import ConfigError


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
    }  # fmt: skip
    assert parsed(parser, tmp_path / "a.toml", "", "Si.cif").structure == "Si.cif"
    assert with_config(["Si.cif", "--fmax", "1"], parser) == ["Si.cif", "--fmax", "1"]


def test_a_list_of_values_does_not_swallow_the_structure(parser, tmp_path):
    found = parsed(parser, tmp_path / "a.toml", "strains = [0.1, 0.2]", "Si.cif")
    assert (found.structure, found.strains) == ("Si.cif", [0.1, 0.2])


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


def test_a_missing_name_or_file_is_said(parser, tmp_path):
    with pytest.raises(ConfigError, match="--config needs the name of a TOML file"):
        with_config(["Si.cif", "--config"], parser)
    with pytest.raises(ConfigError, match=r"none\.toml"):
        with_config(["--config=none.toml"], parser)


def test_a_verb_with_a_file_of_its_own_takes_it_as_that():
    parser = argparse.ArgumentParser()
    parser.add_argument("config", nargs="?")
    assert with_config(["--config", "run.toml", "--steps", "3"], parser) == ["run.toml", "--steps", "3"]
