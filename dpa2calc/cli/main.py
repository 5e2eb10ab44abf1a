"""The console command `dpa2calc`: one verb, one module with `add_arguments(parser)` and `run(args)`."""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import sys
from collections.abc import Sequence

from dpa2calc.cli.arguments.application import each_structure
from dpa2calc.cli.arguments.config_file import add_config_argument, with_config
from dpa2calc.cli.arguments.written import add_written_arguments, check_written
from dpa2calc.cli.completion import add_completion_argument
from dpa2calc.cli.shell import HelpFormatter, Parser, Speaker, readable_streams, run_verb
from dpa2calc.files.options import with_home
from dpa2calc.version import __version__

# verb -> (module inside dpa2calc.cli.verbs, its line of help). A verb's module is imported only when it is
# used, so `dpa2calc --help` needs neither torch nor ASE. A module has EXAMPLE, the end of its help,
# DESCRIPTION where its beginning is more than the line here, and TABLE where it has --csv: what a row is.
VERBS: dict[str, tuple[str, str]] = {
    "models": ("models.models", "models by name: inside the package, or published and downloaded when used"),
    "describe": ("models.describe", "what a model is: heads, elements, functionals, sizes, training figures"),
    "heads": ("models.heads", "which heads of a model suit a structure, and may be trusted there"),
    "evaluate": (
        "training.evaluate",
        "energies, forces and stresses of structures; errors against labels in the file",
    ),
    "md": ("trajectories.md", "molecular dynamics: NVE, NVT, NPT, ramps, exact restart"),
    "lammps": ("trajectories.lammps", "an input file of LAMMPS, with a model as its pair style"),
    "relax": ("solids.relax", "relax positions and cell, with the space group kept if wanted"),
    "phase-transition": (
        "trajectories.phase_transition",
        "temperature scan up and down, transition temperature",
    ),
    "rdf": ("trajectories.rdf", "radial distribution functions with error bars"),
    "adf": ("trajectories.adf", "angular distribution with error bars"),
    "diffusion": ("trajectories.diffusion", "diffusion coefficients, conductivity, activation energy"),
    "map": ("trajectories.map", "map of descriptors by PCA and t-SNE"),
    "eos": ("solids.eos", "equation of state: equilibrium volume, bulk modulus"),
    "elastic": ("solids.elastic", "elastic constants: full tensor, stability, averages"),
    "phonons": ("solids.phonons", "phonons: bands, density of states, thermal properties, quasi-harmonic"),
    "vibrations": ("solids.vibrations", "vibrations of a molecule: frequencies, zero-point and free energy"),
    "surface": ("solids.surface", "surface energy of a face, from slabs of several thicknesses"),
    "vacancy": ("solids.vacancy", "vacancy formation energy, from supercells of several sizes"),
    "neb": ("solids.neb", "minimum-energy path and barrier between two structures"),
    "screen": ("solids.screen", "one task on many structures: resumable, in several processes"),
    "serve": ("models.serve", "answer i-PI, or another program that speaks its protocol, on a socket"),
    "train": ("training.train", "train a model on one dataset or several (a head for each)"),
    "finetune": ("training.finetune", "carry a pre-trained model over to new data"),
    "distill": ("training.distill", "teach a small, fast student what a large model knows"),
    "learn": ("training.learn", "active learning: label where the model is unsure, with any program"),
    "uncertainty": ("training.uncertainty", "measure how sure a model is, for one that does not know it"),
    "compress": (
        "models.compress",
        "tabulate a student's embedding: error and size, a file that opens compressed",
    ),
    "convert": ("models.convert", "models between this package's files and deepmd-kit's"),
}


def build_parser(*filled: str | None) -> argparse.ArgumentParser:
    """The parser with the own options of the named verbs filled in."""
    about = "DPA-2 large atomic models: calculator, training, applications."
    parser = Parser(prog="dpa2calc", description=about, formatter_class=HelpFormatter)
    parser.add_argument("--version", action="version", version=__version__)
    add_completion_argument(parser, lambda: build_parser(*VERBS))
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (place, line) in VERBS.items():
        own = verbs.add_parser(name, help=line, formatter_class=HelpFormatter)
        if name in filled:
            module = importlib.import_module(f"dpa2calc.cli.verbs.{place}")
            about = f"{line[0].upper()}{line[1:]}."
            own.description, own.epilog = getattr(module, "DESCRIPTION", about), module.EXAMPLE
            module.add_arguments(own)
            add_written_arguments(own, getattr(module, "TABLE", ""))
            add_config_argument(own)
            own.set_defaults(run=module.run, parser=own)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; what a user can meet becomes one clear line and an exit code."""
    readable_streams()
    arguments = with_home(list(sys.argv[1:] if argv is None else argv))
    words = arguments[2 * (arguments[:1] == ["--completion"]) :]
    verb = next((word for word in words if not word.startswith("-")), None)
    say = Speaker()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    def run() -> int:
        parser = build_parser(verb)
        if verb is not None and verb not in VERBS:
            close = difflib.get_close_matches(verb, VERBS, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            parser.error(f"there is no verb {verb!r}; {hint}Verbs: {', '.join(VERBS)}")
        args = parser.parse_args(_with_config(arguments, parser))
        say.args, args.say, args.command = args, say, ["dpa2calc", *arguments]
        check_written(args)
        return each_structure(args)

    return run_verb(run, say)


def _with_config(arguments: Sequence[str], parser: argparse.ArgumentParser) -> Sequence[str]:
    """The arguments, with the options of the verb's --config as defaults."""
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    place = next((i for i, word in enumerate(arguments) if word in verbs.choices), None)
    if place is None:
        return arguments
    return [*arguments[: place + 1], *with_config(arguments[place + 1 :], verbs.choices[arguments[place]])]


if __name__ == "__main__":
    sys.exit(main())
