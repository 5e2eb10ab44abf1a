"""Output that the solid-state verbs share: one folder with the result, its figure and what was computed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .structures import save_figure


def add_output_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --out and --no-progress.

    Args:
        default: for the help, what --out is when left out.
    """
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out",
        metavar="FOLDER",
        help=f"folder for all files; finished work in it is not computed again (default: {default})",
    )
    group.add_argument("--no-progress", action="store_true", help="no progress bar on stderr")


def work_folder(args: argparse.Namespace) -> Path:
    """Where finished pieces of the calculation are kept, so that it resumes."""
    return Path(args.out) / "work"


def report(result: Any, args: argparse.Namespace, name: str) -> None:
    """Save the result and its figure as NAME.npz and NAME.png in --out, and print the summary."""
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    stored = result.save(folder / f"{name}.npz")
    figure = save_figure(result, folder / f"{name}.png")
    print(result.summary())
    print(f"result {stored}, figure {figure}")
