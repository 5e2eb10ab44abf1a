"""Options that many verbs share: which calculator, which structure, where results go."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, cast

from dpa2calc.errors import ConfigError, DataError, DPA2CalcError, ElementError, HeadError
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
        try:
            head = resolve_head(args.head, heads, model=args.model, elements=elements)
        except HeadError as error:
            raise _ranked(error, args, structures) from None
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


def _ranked(error: HeadError, args: argparse.Namespace, structures: Sequence[Atoms]) -> HeadError:
    """The error with the heads in the order in which they know the first structure, where none was named."""
    if args.head is not None or not structures:
        return error
    from dpa2calc.engine.head_ranking import rank_heads
    from dpa2calc.store.load import load_model

    try:
        fits = rank_heads(load_model(args.model).use("inference"), structures[0])
    except DPA2CalcError:  # the structure, too, is said to be wrong when the right head is there
        return error
    order = {fit.head: place for place, fit in enumerate(fits)}
    known = sorted((h for h in error.heads if h.name in order), key=lambda head: order[head.name])
    lines = [str(error.args[0]), f"for {structures[0].get_chemical_formula()}, the best first:"]
    lines += [f"  {fit.summary()}" for fit in fits]
    return HeadError("\n".join(lines), known, error.elements)


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


def read_frame(path: str, index: int | None = None, option: str = "--index") -> Atoms:
    """One frame of any file that ASE reads; FILE@N names frame N too.

    Args:
        option: that `index` is from; "" where only FILE@N names a frame.

    Raises:
        DataError: the file is missing, ASE cannot read it, it has no such frame, or it holds several and
            none is named.
    """
    from dpa2calc.files.structures import iread_structures, named_frame

    named = f"{option} {index}"
    file, frame = named_frame(path)
    if frame is not None:
        path, index, named = file, frame, path
    frames = list(islice(iread_structures(path, slice(None) if index is None else index), 2))
    if index is not None and not frames:
        n = sum(1 for _ in iread_structures(path))
        raise DataError(
            f"{path} has no frame {index}, which {named} asks for; it holds {n}: 0 is the first, {n - 1} or "
            "-1 the last"
        )
    if len(frames) != 1:
        ways = " or ".join([*([f"{option} N"] if option else []), f"{path}@N"])
        raise DataError(
            f"{path} holds {'more than one frame' if frames else 'no frame'}, and this command takes one "
            f"structure; name it with {ways} (0 is the first frame, -1 the last)"
        )
    return frames[0]
