"""`dpa2calc models`: the models that have a name."""

from __future__ import annotations

import argparse
import json
from typing import Any

EXAMPLE = """example:
  dpa2calc models
  dpa2calc describe DPA-2.4-7M      # its heads; downloads it first
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print a table of the registry."""
    from dpa2calc.store.registry import available_models, cache_folder

    folder = cache_folder()
    rows: list[dict[str, Any]] = []
    for entry in available_models().values():
        if entry.shipped:
            place = "in the package"
        else:
            place = "downloaded" if (folder / entry.file).is_file() else "online"
        rows.append(
            {
                "name": entry.name,
                "aliases": list(entry.aliases),
                "place": place,
                "heads": list(entry.heads),
                "licence": entry.licence,
                "description": entry.description,
                "page": entry.page,
                "sha256": entry.sha256,
            }
        )
    if args.json:
        print(json.dumps({"cache": str(folder), "models": rows}, indent=2))
        return 0
    table = [("NAME", "WHERE", "HEADS", "LICENCE", "DESCRIPTION")]
    for r in rows:
        table.append((r["name"], r["place"], str(len(r["heads"]) or "?"), r["licence"], r["description"]))
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    for row in table:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]))
    print(f"\ndownloads are kept in {folder}")
    return 0
