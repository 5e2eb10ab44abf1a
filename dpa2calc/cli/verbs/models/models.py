"""`dpa2calc models`: the models that have a name."""

from __future__ import annotations

import argparse

from dpa2calc.cli.arguments.written import write_values

EXAMPLE = """example:
  dpa2calc models
  dpa2calc describe DPA-2.4-7M      # its heads; downloads it first
"""
TABLE = "a row a model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print a table of the registry."""
    from dpa2calc.store.registry import available_models, cache_folder

    folder = cache_folder()
    entries = available_models().values()
    here = [
        "in the package" if e.shipped else "downloaded" if (folder / e.file).is_file() else "online"
        for e in entries
    ]
    names = ("name", "aliases", "heads", "licence", "description", "page", "sha256")
    columns = {**{name: [getattr(entry, name) for entry in entries] for name in names}, "place": here}
    models = [dict(zip(columns, row)) for row in zip(*columns.values())]
    words = {name: [" ".join(item) for item in columns[name]] for name in ("aliases", "heads")}
    fields = "cache: folder of downloads; models: names, heads, licence and source of each, and where it is"
    write_values(args, ("models", fields), {"cache": folder, "models": models}, {**columns, **words})
    if args.json:
        return 0
    table = [("NAME", "WHERE", "HEADS", "LICENCE", "DESCRIPTION")]
    for e, place in zip(entries, here):
        table.append((e.name, place, str(len(e.heads) or "?"), e.licence, e.description))
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    for row in table:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]))
    print(f"\ndownloads are kept in {folder}")
    return 0
