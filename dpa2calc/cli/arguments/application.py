"""What verbs on one structure share: options, calculator, and a folder with the result and its figure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpa2calc.cli.shell import MET, one_line
from dpa2calc.errors import ConfigError
from dpa2calc.files.figures import save_figure

from .output import choose_folder, structure_name
from .structures import add_calculator_arguments, add_structure_argument, make_calculator, read_structure
from .written import Table, values_of, write_values

if TYPE_CHECKING:
    from ase import Atoms

    from dpa2calc.files.results import Result

Group = argparse._ArgumentGroup


def add_application_arguments(
    parser: argparse.ArgumentParser, title: str, out: str, *, several: bool = False
) -> tuple[Group, Group]:
    """Add FILE, the calculator's options, --out and --no-progress.

    Args:
        title: of the application's own options.
        out: for the help, what --out is when left out; an empty text adds no --out.
        several: more files may follow, which are done one after the other, see `each_structure`.

    Returns:
        the groups of the application's own options and of those on output.
    """
    add_structure_argument(parser)
    if several:
        parser.add_argument("more", nargs="*", metavar="FILE", help="further structures, each by itself")
    add_calculator_arguments(parser)
    own, output = parser.add_argument_group(title), parser.add_argument_group("output")
    if out:
        text = "folder for all files; finished work in it is not computed again"
        output.add_argument("--out", metavar="FOLDER", help=f"{text} (default: {out})")
    output.add_argument("--no-progress", action="store_true", help="no progress bar on stderr")
    return own, output


def each_structure(args: argparse.Namespace) -> int:
    """Run a verb on each of its structures; one that fails is reported, and the others are done.

    Returns:
        the highest exit code.

    Raises:
        ConfigError: several structures, and an option that names the file of one, or two of one name.
    """
    if not getattr(args, "more", ()):
        return int(args.run(args) or 0)
    for name in ("out", "json", "csv"):
        if getattr(args, name, None) is not None:
            raise ConfigError(f"--{name} names a file of one structure; with several, leave it out")
    each = [argparse.Namespace(**{**vars(args), "structure": file}) for file in (args.structure, *args.more)]
    _refuse_one_name(each)
    codes = []
    for one in each:
        try:
            codes.append(one.run(one) or 0)
        except MET as error:
            print(args.say(f"{one.structure}: {one_line(error)}"), file=sys.stderr)
            codes.append(1)
    return max(codes)


def _refuse_one_name(each: Sequence[argparse.Namespace]) -> None:
    """Refuse structures whose results would replace each other, as those of a/Cu.cif and b/Cu.cif."""
    first: dict[str, str] = {}
    for one in each:
        if (name := structure_name(one)) in first:
            raise ConfigError(
                f"{first[name]} and {one.structure} would both be written as {name}; give "
                "one of them another name, or each a call of its own with --out"
            )
        first[name] = one.structure


def refuse_idle(args: argparse.Namespace, where: str, *names: str) -> None:
    """Refuse options that were given where they have no effect.

    Args:
        where: that is, such as "with --no-tsne".

    Raises:
        ConfigError: names the first of them.
    """
    for action in args.parser._actions:
        given = getattr(args, action.dest, None) != args.parser.get_default(action.dest)
        if action.dest in names and (given or action.dest in getattr(args, "in_file", ())):
            raise ConfigError(f"{action.option_strings[0]} has no effect {where}; leave it out")


def prepared_atoms(args: argparse.Namespace, verb: str, *details: str) -> Atoms:
    """The structure with its calculator; args.out is chosen, see `choose_folder`, and can be written.

    Raises:
        DataError, ConfigError, OutputError: as `read_structure`, `choose_folder` and `make_calculator`.
    """
    atoms = read_structure(args)
    choose_folder(args, verb, *details)
    atoms.calc = make_calculator(args, [atoms])
    return atoms


def chosen(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Options of these names, `folder` where finished pieces are kept, and `progress`."""
    options = {name: getattr(args, name) for name in names}
    return {**options, "folder": Path(args.out) / "work", "progress": not args.no_progress}


def report(
    result: Result,
    args: argparse.Namespace,
    name: str,
    table: Table | None = None,
    more: Mapping[str, object] | None = None,
) -> int:
    """Save result and figure as NAME.npz and NAME.png in --out, print the summary; the exit code.

    Args:
        table: for --csv. more: values for --json beside those of the result, by names with their units.
    """
    folder = Path(args.out)
    print(result.summary())  # first: it is there if the disk is full
    stored = result.save(folder / f"{name}.npz")
    figure = save_figure(folder / f"{name}.png", result.plot)
    write_values(args, type(result), {**values_of(result), **(more or {})}, table, made_by=result.provenance)
    print(f"result {stored}, figure {figure}")
    return 0
