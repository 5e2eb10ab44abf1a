"""`dpa2calc map`: what a model sees, as a map of descriptors."""

from __future__ import annotations

import argparse
import os
from functools import partial
from typing import TYPE_CHECKING

from dpa2calc.cli.arguments.application import refuse_idle
from dpa2calc.cli.arguments.frames import add_selection_arguments, selected_frames
from dpa2calc.cli.arguments.output import check_files, stem
from dpa2calc.cli.arguments.structures import add_calculator_arguments, make_calculator
from dpa2calc.cli.arguments.written import Table, write_result
from dpa2calc.errors import ConfigError
from dpa2calc.files.figures import check_figure, save_figure

if TYPE_CHECKING:
    from dpa2calc.applications import Frames, RepresentationMap

EXAMPLE = """examples:
  dpa2calc map water=water.extxyz ice=ice.extxyz --head H2O-PBE0TS --colour group environment --html map.html
  dpa2calc map frames.extxyz --model DPA-2.4-7M --level structure --max-points 1000
"""
DESCRIPTION = "Descriptors of many atoms or structures in two dimensions, coloured by what they are."
TABLE = "a row a point"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("structures", nargs="+", metavar="[GROUP=]FILE", help="files that ASE reads, with group names")
    add("--level", choices=("atom", "structure"), default="atom", help="what a point is")
    add("--elements", nargs="+", metavar="EL", help="only atoms of these")
    add(
        "--colour",
        nargs="+",
        choices=("group", "element", "environment"),
        default=["group", "element"],
        help="one picture for each",
    )
    add("--no-tsne", action="store_true", help="PCA only (needs no scikit-learn)")
    add("--max-points", type=int, default=3000, help="of all, chosen by chance")
    add("--perplexity", type=float, default=30.0, help="of t-SNE")
    add("--seed", type=int, default=0, help="of the choice of points and t-SNE")
    add("--figure", metavar="FILE", help="picture (default: NAME-map.png, NAME from the inputs')")
    add("--html", metavar="FILE", help="also write a page to explore the map in a browser")
    add("--chemiscope", metavar="FILE", help="also write map and structures for chemiscope.org (.json.gz)")
    add("--save", metavar="FILE", help="store the result (.npz)")
    add_selection_arguments(parser)
    add_calculator_arguments(parser)
    parser.set_defaults(python_names={"methods": "--no-tsne"})


def run(args: argparse.Namespace) -> int:
    """Print the summary, draw the figure, write the page."""
    from dpa2calc.applications import representation_map

    if args.no_tsne:
        refuse_idle(args, "with --no-tsne", "perplexity")
    groups: dict[str, Frames] = {}
    files: list[str] = []
    for word in args.structures:
        name, file = _group_and_file(word)
        if (name or file) in groups:
            raise ConfigError(
                f"group {name or file!r} is named twice; give each file its own name as NAME=FILE"
            )
        groups[name or file] = selected_frames(args, file)
        files.append(stem(file))
    figure = args.figure or f"{'-'.join(list(dict.fromkeys(files))[:4])}-map.png"
    check_figure(figure)
    check_files(args.html, args.chemiscope, args.save)
    result = representation_map(
        groups,
        make_calculator(args),
        level=args.level,
        elements=args.elements,
        methods=("pca",) if args.no_tsne else ("pca", "tsne"),
        max_points=args.max_points,
        perplexity=args.perplexity,
        seed=args.seed,
        progress=not args.quiet,
    )
    print(result.summary())
    write_result(args, result, _table(result))
    plots = [partial(result.plot, colour=colour) for colour in args.colour]
    print(f"figure: {save_figure(figure, *plots)}")
    if args.html:
        print(f"page: {result.write_html(args.html)}")
    if args.chemiscope:
        print(f"chemiscope file: {result.write_chemiscope(args.chemiscope, groups)}")
    if args.save:
        print(f"result: {result.save(args.save)}")
    return 0


def _group_and_file(word: str) -> tuple[str, str]:
    """GROUP=FILE at the sign after which there is a file; folders such as T=300 have signs of their own."""
    cuts = [(word[:place], word[place + 1 :]) for place, letter in enumerate(word) if letter == "="]
    return next((cut for cut in [("", word), *cuts] if os.path.exists(cut[1])), (cuts or [("", word)])[-1])


def _table(result: RepresentationMap) -> Table:
    plane = {"pca": result.pca} if result.tsne is None else {"pca": result.pca, "tsne": result.tsne}
    places = {f"{name}_{k + 1}": points[:, k] for name, points in plane.items() for k in range(2)}
    kinds = {key: [names[code] for code in result.codes[key]] for key, names in result.labels.items()}
    return {**places, **kinds, "frame": result.frame, "atom": result.atom}
