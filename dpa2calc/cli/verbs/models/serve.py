"""`dpa2calc serve`: answer i-PI, or another program that speaks its protocol, on a socket."""

from __future__ import annotations

import argparse

from dpa2calc.cli.arguments.application import refuse_idle
from dpa2calc.cli.arguments.structures import (
    add_calculator_arguments,
    add_structure_argument,
    make_calculator,
    read_structure,
)
from dpa2calc.cli.arguments.written import write_values

EXAMPLE = """\
example: a water box for i-PI, whose input has <ffsocket mode='unix'> <address> water </address>
  dpa2calc serve water.extxyz --model student-water --unixsocket water

FILE has the atoms in the order in which the program has them; its periodic directions are used. Start one
process for each bead that is to be computed at the same time. Without --unixsocket the connection is by
TCP to this machine; another machine has to be named with --host.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_structure_argument(parser)
    add_calculator_arguments(parser)
    group = parser.add_argument_group("socket")
    group.add_argument("--host", default="localhost", help="where the program listens")
    group.add_argument("--port", type=int, default=31415, help="where the program listens")
    group.add_argument("--unixsocket", metavar="NAME", help="a UNIX socket, /tmp/ipi_NAME, in place of those")
    group.add_argument(
        "--patience",
        type=float,
        default=60.0,
        metavar="S",
        help="to wait for the program, and after a lost connection",
    )


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    if args.unixsocket is not None:
        refuse_idle(args, "with --unixsocket", "host", "port")
    atoms = read_structure(args)
    atoms.calc = make_calculator(args, [atoms])
    atoms.get_potential_energy()  # what is wrong is found before another program waits for an answer
    from dpa2calc.files.results import provenance
    from dpa2calc.integrations.ipi_driver import serve

    answered = serve(
        atoms, host=args.host, port=args.port, unixsocket=args.unixsocket, patience=args.patience
    )
    print(f"{answered} structures answered")
    values = {"answered": answered, **{name: getattr(args, name) for name in ("host", "port", "unixsocket")}}
    fields = "answered: structures; host and port, or unixsocket: where the program listened"
    write_values(args, ("serve", fields), values, made_by=provenance(atoms.calc))
    return 0
