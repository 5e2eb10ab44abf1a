"""Messages of the library in the words of each verb's options."""

import argparse
import functools
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from dpa2calc.cli.main import VERBS, build_parser, main
from dpa2calc.cli.words import in_options


@functools.cache
def parser_of(verb: str) -> argparse.ArgumentParser:
    return build_parser(verb)._subparsers._group_actions[0].choices[verb]  # type: ignore


OPTIONS = [
    (verb, action)
    for verb in VERBS
    for action in parser_of(verb)._actions
    if action.option_strings
    and action.dest not in ("help", "index")
    and not (action.help or "").startswith("the same as")
]


@pytest.mark.parametrize(("verb", "action"), OPTIONS, ids=lambda part: getattr(part, "dest", part))
def test_arguments_of_functions_become_the_options_of_the_verb(verb, action):
    parser = parser_of(verb)
    option = next(o for o in action.option_strings if o.startswith("--"))
    said = in_options(f"use {action.dest}=... or another; it fails", parser)
    assert said.startswith(f"use {option}") and f"{action.dest}=" not in said
    assert f"{option} is 3; it must be" in in_options(f"{action.dest} is 3; it must be above 5", parser)
    assert f"{option} = 3 is not" in in_options(f"{action.dest} = 3 is not allowed", parser)


@pytest.mark.parametrize(
    ("verb", "message", "said"),
    [
        ("eos", "choose one with head=...", "choose one with --head HEAD"),
        ("md", "give overwrite=True to replace it", "give --overwrite to replace it"),
        ("eos", "or pass allow_unseen_elements=True to", "or pass --allow-unseen-elements to"),
        ("eos", "or use compress=False", "or use --no-compress"),
        ("eos", "compress=True is then", "--compress is then"),
        ("neb", "use relax_ends=True", "use no --fixed-ends"),
        ("neb", "use relax_ends=False", "use --fixed-ends"),
        ("diffusion", "say wrapped=False", "say --unwrapped"),
        ("vibrations", "use relax='positions' or relax it", "use --relax positions or relax it"),
        ("relax", "but relax='positions'; use relax='cell'", "but --relax positions; use --relax cell"),
        ("relax", "raise max_steps or fmax, use dtype='x'", "raise --max-steps or --fmax, use --dtype x"),
        ("eos", "strains must be 5 or more", "--range and --points must be 5 or more"),
        ("map", 'or use methods=("pca",)', "or use --no-tsne"),
        ("vibrations", "use phonons() for a crystal", "use dpa2calc phonons for a crystal"),
        ("neb", "nudged_elastic_band needs a crystal", "dpa2calc neb needs a crystal"),
        ("vacancy", "give chemical_potential={'O': eV of one atom}", "give --chemical-potential ELEMENT=EV"),
        ("finetune", "name energy_key=... (in Python LabelKeys(energy=...))", "name --energy-key NAME"),
        # words of a sentence, names in quotes and paths are left alone
        ("relax", "the cell is too flat; relax the cell", "the cell is too flat; relax the cell"),
        ("relax", "a/max_steps/b.max_steps is no 'max_steps'", "a/max_steps/b.max_steps is no 'max_steps'"),
        ("finetune", "sets.a.train is empty", "sets.a.train is empty"),
    ],
)  # fmt: skip
def test_sentences(verb, message, said):
    assert in_options(message, parser_of(verb)) == said


def test_keys_of_a_file_stay_keys_where_the_command_line_did_not_give_them():
    parser = parser_of("train")
    given = parser.parse_args(["run.toml", "--steps", "3"])
    assert in_options("batch_atoms = 0 is not allowed", parser, given) == "batch_atoms = 0 is not allowed"
    assert in_options("steps = 0 is not allowed", parser, given) == "--steps = 0 is not allowed"


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", bulk("Cu", cubic=True))
    write("N2.xyz", molecule("N2"))
    write("far.extxyz", Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.4]]))
    write("run.traj", [bulk("Cu", cubic=True)] * 3)
    Path("zero.xyz").write_text("0\n\n")


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("eos Cu.cif --points 3", "--points"),
        ("eos Cu.cif --fmax 0", "--fmax must be"),
        ("elastic Cu.cif --strains 0.01", "--strains must be"),
        ("phonons Cu.cif --displacement -1", "--displacement must be"),
        ("phonons Cu.cif --min-length 0", "--min-length must be"),
        ("phonons Cu.cif --method hessian", "--method hessian needs"),
        ("phonons Cu.cif --method hessian --convergence", "--convergence works by displacements"),
        ("surface Cu.cif --thicknesses 10", "--thicknesses must be"),
        ("surface Cu.cif --miller 0 0 0", "--miller must be"),
        ("vacancy Cu.cif --lengths -1 5", "--lengths must be"),
        ("vacancy Cu.cif --site 9", "--site must be"),
        ("vibrations N2.xyz --atoms 5", "--atoms must be"),
        ("neb Cu.cif --final Cu.cif --images 2", "--images must be"),
        ("relax far.extxyz --relax cell", "--relax cell"),
        ("relax Cu.cif --pressure-gpa 1", "--pressure-gpa is 1.0"),
        ("md Cu.cif --steps 0 --timestep-fs 0", "--timestep-fs is 0.0"),
        ("md Cu.cif --steps 5 --velocities keep", "--velocities keep"),
        ("phase-transition Cu.cif --temperatures 300,400", "--temperatures is"),
        ("phase-transition Cu.cif --temperatures 100:900:100 --equilibration 2", "--equilibration is 2"),
        ("rdf run.traj --pairs Cu-Cu --bin-width 0", "--bin-width = 0"),
        ("adf run.traj --triplet Cu-Cu", "--triplet"),
        ("diffusion run.traj --species Cu --quiet", "give --interval-fs"),
        ("map Cu.cif --max-points 5", "get_descriptors"),
        ("eos --structure none.cif", "dpa2calc eos: there is no file none.cif"),
        ("md none.cif --steps 1", "dpa2calc md: there is no file none.cif; give one that ASE reads, such as"),
        ("md Cu.cif --steps 1 --repeat 0 1 1", "--repeat is [0, 1, 1]; give three whole numbers"),
        ("md Cu.cif --steps 1 --index 7", "has no frame 7"),
        ("phase-transition Cu.cif --temperatures 300:x", "is '300:x'; give FIRST:LAST:STEP such as 300:1000"),
        ("phase-transition Cu.cif --temperatures 300,400", "give at least five, increasing"),
        ("rdf none.traj", "there is no trajectory file"),
        ("rdf run.traj --quiet", "has no O atom; it has Cu"),
        ("diffusion run.traj --quiet", "has no Li atom"),
        ("diffusion run.traj --temperature 1 2", "1 trajectories but 2 temperatures"),
        # found by the verb itself
        ("eos Cu.cif --points -1", "--range and --points must be 5 or more"),
        ("eos Cu.cif --points 99999999999999999999", "--points is 99999999999999999999; it must be 5"),
        ("rdf run.traj --figure Cu --quiet", "Cu has the ending of no picture; allowed: ."),
        ("phonons Cu.cif --max-temperature nan", "--max-temperature is nan; give a temperature from 0 to"),
        ("phonons Cu.cif --max-temperature -10", "--max-temperature is -10; give"),
        ("phase-transition Cu.cif --temperatures 300:inf:10", "--temperatures is '300:inf:10'; give FIRST"),
        ("phase-transition Cu.cif --temperatures 1:2:1e-300", "give FIRST:LAST:STEP"),
        ("screen Cu.cif --option output=x", "takes no options"),
        ("screen Cu.cif --task relax --option task=x", "unknown option task = 'x'"),
        ("md Cu.cif --steps 9 --pressure 5", "--pressure-gpa is 5.0, but --ensemble nvt keeps the cell; use"),
        ("md Cu.cif --steps 9 --cell-motion axes", "--cell-motion has no effect without --ens"),
        ("md Cu.cif --steps 9 --ensemble nve --thermostat bussi", "--thermostat has no effect with --ense"),
        ("md Cu.cif --steps 9 --ensemble npt --thermostat bussi", "--thermostat has no effect with --ense"),
        ("md Cu.cif --steps 9 --ramp-steps 5", "--ramp-steps has no effect without a ramp"),
        ("relax Cu.cif --smax-gpa 1", "--smax-gpa has no effect where the cell does not change"),
        ("relax Cu.cif --symprec 0.1", "--symprec has no effect without --keep-symmetry"),
        ("phonons Cu.cif --quasi-harmonic --relax fixed", "--relax has no effect with --quasi-harmonic"),
        ("phonons Cu.cif --convergence --supercell 2 2 2", "--supercell has no effect with --convergence"),
        ("phonons Cu.cif --method hessian --displacement 0.1", "--displacement has no effect with --method"),
        ("phonons Cu.cif --supercell 2 2 2 --min-length 9", "--min-length has no effect with --supercell"),
        ("eos Cu.cif --relax fixed --fmax 0.1", "--fmax has no effect with --relax fixed"),
        ("vacancy Cu.cif --unrelaxed --fixed-bulk --fmax 1", "--fmax has no effect where nothing is relaxed"),
        ("surface Cu.cif --unrelaxed --fixed-bulk --fmax 1", "--fmax has no effect where nothing is relaxed"),
        ("diffusion run.traj --charge 1", "--charge has no effect without --temperature"),
        ("phase-transition Cu.cif --temperatures 1:9:1 --cage F", "--cage has no effect without --centre"),
        ("md Cu.cif --steps 9 --committee-limit 1", "--committee-limit has no effect without --committee"),
        ("vibrations N2.xyz --symmetry-number 2", "--symmetry-number has no effect without --temperature"),
        ("vibrations N2.xyz --atoms 1 --temperature 9 --spin 1", "--spin has no effect where some"),
        ("map Cu.cif --no-tsne --perplexity 5", "--perplexity has no effect with --no-tsne"),
        ("serve Cu.cif --unixsocket a --port 9", "--port has no effect with --unixsocket"),
        ("evaluate Cu.cif -o a.json --json ./a.json", "a.json; give each a file of its own"),
        ("diffusion Cu.cif N2.xyz --save a.npz", "--save keeps one result, of several trajectories the"),
        ("diffusion Cu.cif N2.xyz --save a.npz --temperature 9 9", "give different --temperature values"),
        ("eos zero.xyz", "dpa2calc eos: the structure has no atoms"),
        ("relax zero.xyz", "dpa2calc relax: the structure has no atoms"),
        ("evaluate Cu.cif --index a:b", "frames 'a:b' are not understood; write a number, or a slice"),
    ],
)  # fmt: skip
def test_what_a_wrong_value_is_called(words, option, files, capsys):
    known = "" if words.split()[0] in ("rdf", "adf", "diffusion") else " --calculator emt"
    assert main((words + known).split()) == 1
    error = capsys.readouterr().err
    assert option in error and error.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_begins_with_what_it_does(verb):
    description = parser_of(verb).description
    assert description[0].isupper() and description.endswith(".") and "example" in parser_of(verb).epilog
