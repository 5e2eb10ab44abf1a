"""`dpa2calc describe MODEL`: heads, elements, functionals, sizes, training figures."""

from __future__ import annotations

import argparse
import json

from dpa2calc.cli.arguments.deferred import check_names
from dpa2calc.heads import resolve_head

EXAMPLE = """example:
  dpa2calc describe                       # the model inside the package
  dpa2calc describe model.pt              # a file of deepmd-kit
  dpa2calc describe DPA-2.4-7M --head H2O-PD --json
"""


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
    if args.json:
        facts = model_facts(potential)
        facts["heads"] = [entry for entry in facts["heads"] if head in (None, entry["name"])]
        print(json.dumps({"model": args.model, **facts}, indent=2))
    else:
        print(describe(potential, args.model, head=head))
    return 0
