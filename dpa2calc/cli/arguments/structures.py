"""Options that many verbs share: which calculator, which structure, where results go."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, cast

from dpa2calc.errors import ConfigError, DataError, ElementError, HeadError
from dpa2calc.heads import check_known, resolve_head

from .deferred import DeferredCalculator, heads_in_header

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator


def add_calculator_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --model, --head, --device, --dtype, --compress, --committee, --dispersion, and a few more."""
    group = parser.add_argument_group("calculator")
    add = group.add_argument
    text = "'default' (inside the package), a published name (`dpa2calc models`), or a checkpoint file"
    add("--model", default="default", help=text)
    add("--head", help="head of a multi-head model: its name, alias, or a unique ending of it")
    add("--device", help="cpu, cuda, cuda:1, mps; chosen automatically when left out")
    add("--dtype", choices=("float32", "float64"), default="float32", help="of the network")
    text = "use tables for the radial embedding, or not (default: what the model's file says)"
    add("--compress", action=argparse.BooleanOptionalAction, help=text)
    add("--committee", nargs="+", metavar="MODEL", help="further models; their spread is the uncertainty")
    text = "add D3(BJ) dispersion, for the head's functional or this one"
    add("--dispersion", metavar="d3bj[:FUNCTIONAL]", help=text)
    add("--allow-unseen-elements", action="store_true", help="evaluate elements that the head never saw")
    # for the tests of the verbs: a calculator that needs no weights
    add("--calculator", choices=("dpa2", "emt", "lj"), default="dpa2", help=argparse.SUPPRESS)


def make_calculator(args: argparse.Namespace, structures: Sequence[Atoms] = ()) -> Calculator:
    """The ASE calculator that the options of `add_calculator_arguments` describe.

    A model of this package's own format is loaded when it is first used, so that the wrong options that an
    application finds cost no time; its head is checked here all the same.

    Args:
        structures: `ase.Atoms` that will be evaluated; where a head has to be chosen, those that know their
            elements are listed.

    Raises:
        HeadError, ElementError, CheckpointError, DownloadError, ConfigError: as `DPA2Calculator`.
    """
    if args.calculator == "emt":
        from ase.calculators.emt import EMT

        return EMT()
    if args.calculator == "lj":  # argon
        from ase.calculators.lj import LennardJones

        return LennardJones(epsilon=0.0104, sigma=3.4, rc=8.5, smooth=True)
    # only what was asked for, so that the calculator's own defaults stay in one place
    options = {name: getattr(args, name) for name in ("device", "compress", "committee", "dispersion")}
    chosen = {name: value for name, value in options.items() if value is not None}
    if args.allow_unseen_elements:
        chosen["allow_unseen_elements"] = True
    elements = sorted({symbol for atoms in structures for symbol in atoms.symbols})
    heads = heads_in_header(args.model)
    make = partial(DeferredCalculator, args.model, args.head, dtype=args.dtype, **chosen)
    if heads is not None:
        head = resolve_head(args.head, heads, model=args.model, elements=elements)
        for number, atoms in enumerate([] if args.allow_unseen_elements else structures):
            try:
                check_known(atoms.symbols, head, heads)
            except ElementError as error:
                name = f"structure {number} ({atoms.get_chemical_formula()})"
                raise ElementError(f"{name}: {error}") from None
        return cast("Calculator", make())  # it becomes one
    calculator = make()
    try:
        calculator.load()
    except HeadError as error:
        raise error.for_elements(elements) from None
    return cast("Calculator", calculator)


def add_structure_argument(parser: argparse.ArgumentParser) -> None:
    """Add FILE (which may also be written --structure FILE), --index and --repeat."""
    add = parser.add_argument
    add(
        "structure",
        nargs="?",
        default=argparse.SUPPRESS,  # so that leaving it out does not undo --structure
        metavar="FILE",
        help="any file that ASE reads (cif, extxyz, POSCAR ...)",
    )
    add("--structure", metavar="FILE", help="the same file, named")
    add("--index", type=int, help="frame to use, of a file that holds several: 0 is the first, -1 the last")
    add("--repeat", type=int, nargs=3, metavar=("A", "B", "C"), help="repeat the cell, for example 2 2 2")


def read_structure(args: argparse.Namespace) -> Atoms:
    """The `ase.Atoms` that the options of `add_structure_argument` name.

    Raises:
        DataError: the file is missing, ASE cannot read it, or it has several frames and --index is missing.
        ConfigError: no file given, --repeat along a direction without a cell vector, or below 1.
    """
    if args.structure is None:
        raise ConfigError("name a structure file, for example: dpa2calc VERB structure.cif")
    atoms = read_frame(args.structure, args.index)
    if args.repeat:
        if min(args.repeat) < 1:
            raise ConfigError(f"--repeat is {args.repeat}; give three whole numbers of at least 1")
        if any(n > 1 and not vector.any() for n, vector in zip(args.repeat, atoms.cell.array)):
            raise ConfigError(f"--repeat {args.repeat}, but {args.structure} has no cell in that direction")
        atoms = atoms.repeat(args.repeat)
    return atoms


def read_frame(path: str, index: int | None = None) -> Atoms:
    """One frame of any file that ASE reads; FILE@N names frame N too.

    Raises:
        DataError: the file is missing, ASE cannot read it, or it holds several frames and `index` is None.
    """
    from dpa2calc.files.structures import iread_structures, read_structures

    name, _, number = path.rpartition("@")
    if not os.path.exists(path) and os.path.isfile(name) and number.removeprefix("-").isdigit():
        path, index = name, int(number)
    if index is not None:
        return read_structures(path, index)[0]
    frames = list(islice(iread_structures(path), 2))
    if len(frames) != 1:
        raise DataError(
            f"{path} holds {'more than one frame' if frames else 'no frame'}, and this command takes one "
            f"structure; name it with --index N or {path}@N (0 is the first frame, -1 the last)"
        )
    return frames[0]
