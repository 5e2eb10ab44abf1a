"""`dpa2calc compress`: tabulate a student, say how good that is, write a file that opens compressed."""

from __future__ import annotations

import argparse
import dataclasses

from dpa2calc.cli.arguments.application import refuse_idle
from dpa2calc.cli.arguments.deferred import check_names
from dpa2calc.cli.arguments.output import check_files
from dpa2calc.cli.arguments.written import write_values
from dpa2calc.errors import CheckpointError

EXAMPLE = """example:
  dpa2calc compress student.pt student.safetensors
  dpa2calc compress student.safetensors                   # only the report
"""
DESCRIPTION = (
    "Tabulate the radial embedding of a DPA-1 without attention, a DeepPot-SE or a DPA-2, "
    "and print the size and the error of the tables. OUT holds the weights as they are, and a note "
    "that the calculator is to use tables, which it makes when it opens the file."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("source", metavar="IN", help="model file or name")
    parser.add_argument("target", metavar="OUT", nargs="?", help="ends in .safetensors")
    parser.add_argument("--tolerance", type=float, default=1e-8, help="of the report (default: 1e-8)")


def run(args: argparse.Namespace) -> int:
    """Compress, report, and write if wanted."""
    if args.target is not None and not args.target.endswith(".safetensors"):
        raise CheckpointError(
            f"OUT = {args.target} must end in .safetensors; deepmd-kit has its own compress"
        )
    if args.target is not None:
        refuse_idle(args, "on OUT, whose tables are made, to 1e-8, when it is opened", "tolerance")
    check_files(args.target)
    check_names(args.source)
    from dpa2calc.model.compression import compress
    from dpa2calc.store.checkpoint import save_checkpoint
    from dpa2calc.store.load import extra_facts, load_model

    fast, report = compress(load_model(args.source), tolerance=args.tolerance)
    print(report.summary())
    write_values(args, type(report), {**dataclasses.asdict(report), "file": args.target})
    if args.target is not None:
        save_checkpoint(fast, args.target, extra_info=extra_facts(args.source))
        print(f"{args.target} opens compressed")
    return 0
