"""What the application examples share: options, reading data folders, verdicts.

Each of them leaves OUTPUT/<name>.json (numbers, verdicts, wall time, machine) and OUTPUT/<name>.png.
"""

from __future__ import annotations

import argparse
import atexit
import io
import lzma
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from ase import Atoms
from ase.io import read

from dpa2calc.cli.arguments.structures import add_calculator_arguments, make_calculator

from .record import save_record

QUICK = "QUICK RUN: it shows that everything works; its numbers mean nothing"


@dataclass(frozen=True)
class Verdict:
    """One claim of the paper (or a limit of our own) and whether the number at hand meets it."""

    claim: str
    value: str
    passed: bool | None  # None: nothing to compare with

    def __str__(self) -> str:
        word = {True: "yes", False: "NO", None: "not judged"}[self.passed]
        return f"{word:<11}{self.claim}: {self.value}"


def judge(claim: str, value: float, limit: float, unit: str = "", digits: int = 3) -> Verdict:
    """A verdict on |value| <= limit."""
    shown = f"{value:+.{digits}f} {unit}".strip()
    return Verdict(f"{claim} within {limit:g} {unit}".strip(), shown, bool(abs(value) <= limit))


def options(description: str | None, model: str, output: str) -> argparse.ArgumentParser:
    """A parser with --model, --head, ... (see `dpa2calc md --help`), --output, --quick, --threads."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path(output), help=f"folder (default: {output})")
    parser.add_argument("--quick", action="store_true", help="a minute or two; the numbers mean nothing")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    parser.add_argument("--seed", type=int, default=1)
    add_calculator_arguments(parser)
    parser.set_defaults(model=model)
    return parser


def prepare(args: argparse.Namespace) -> float:
    """Set torch's threads and matplotlib's canvas, make the output folder, say so if the run is quick.

    Returns:
        When the work began (s since the epoch), moved back by the time that interrupted runs with the same
        --output have taken already; for `save_record`.
    """
    import matplotlib
    import torch

    matplotlib.use("Agg")
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    if args.quick:
        print(QUICK, flush=True)
    clock = args.output / "seconds.txt"
    started = time.time() - (float(clock.read_text()) if clock.exists() else 0.0)
    atexit.register(lambda: clock.write_text(f"{time.time() - started:.1f}\n"))
    return started


def give_up(args: argparse.Namespace, name: str, reason: str, started: float) -> NoReturn:
    """Leave a record that says why a simulation stopped, and end the script with exit code 1."""
    verdict = Verdict("the simulation ran to its end", reason, False)
    save_record(args.output / f"{name}.json", summarise(args, {"status": reason}, [verdict]), started)
    raise SystemExit(1)


def calculator(args: argparse.Namespace) -> Any:
    """The ASE calculator asked for."""
    return make_calculator(args)


def model_name(args: argparse.Namespace) -> str:
    """Model and head in a few characters, for titles and records."""
    if args.calculator != "dpa2":
        return str(args.calculator)
    return Path(args.model).name + (f", {args.head}" if args.head else "")


def read_frame(path: Path) -> Atoms:
    """The last frame of a file that ASE reads."""
    atoms = read(path)
    assert isinstance(atoms, Atoms)
    return atoms


def read_set(folder: Path, parts: Sequence[str] = ("train", "test")) -> list[Atoms]:
    """Frames of a data folder that holds train.extxyz.xz and test.extxyz.xz (docs/data.md)."""
    frames: list[Atoms] = []
    for part in parts:
        text = lzma.open(folder / f"{part}.extxyz.xz", "rt").read()
        frames += read(io.StringIO(text), index=":", format="extxyz")
    return frames


def summarise(
    args: argparse.Namespace, data: Mapping[str, Any], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """Print the verdicts; the record of an example: its numbers, the verdicts, and what made them."""
    for verdict in verdicts:
        print(verdict)
    if args.quick:
        print(QUICK)
    head = {"model": model_name(args), "quick": bool(args.quick)}
    return {**head, **data, "verdicts": [asdict(verdict) for verdict in verdicts]}
