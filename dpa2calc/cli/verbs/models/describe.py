"""`dpa2calc describe MODEL`: heads, elements, functionals, sizes, training figures."""

from __future__ import annotations

import argparse

from dpa2calc.cli.arguments.deferred import check_names
from dpa2calc.cli.arguments.written import MODEL_FIELDS, write_values
from dpa2calc.cli.words import printable
from dpa2calc.heads import resolve_head

EXAMPLE = """example:
  dpa2calc describe                       # the model inside the package
  dpa2calc describe model.pt              # a file of deepmd-kit
  dpa2calc describe DPA-2.4-7M --head H2O-PD --json
"""
TABLE = "a row a head"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "model", nargs="?", default="default", help="a name or a checkpoint file (default: default)"
    )
    parser.add_argument("--head", help="only this head: name, alias or unique ending")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Print the description."""
    check_names(args.model, args.head)
    from dpa2calc.description import describe, model_facts
    from dpa2calc.store.load import load_model

    potential = load_model(args.model)
    head = None
    if args.head is not None:
        head = resolve_head(args.head, potential.config.heads, model=args.model).name
    facts = model_facts(potential)
    heads = facts["heads"] = [entry for entry in facts["heads"] if head in (None, entry["name"])]
    names = ("name", "functional", "predicts", "description")
    table = {name: [entry[name] for entry in heads] for name in names}
    table["elements"] = [" ".join(entry["elements"]) for entry in heads]
    write_values(args, ("describe", MODEL_FIELDS), {"model": args.model, **facts}, table)
    if not args.json:
        print(printable(describe(potential, args.model, head=head)))
    return 0
