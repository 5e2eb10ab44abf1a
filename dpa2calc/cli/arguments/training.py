"""What `train`, `finetune`, `distill` and `evaluate` share: data, labels, threads, the end of a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from dpa2calc.errors import ConfigError

from .written import rounds_to_table, rows_to_table, write_result, write_values

if TYPE_CHECKING:
    from dpa2calc.training import Dataset, TrainConfig, TrainingSet, TrainResult
    from dpa2calc.training.config.run_file import Options, RunFile
    from dpa2calc.training.exploration.file import LoopFile
    from dpa2calc.training.exploration.rounds import RoundsResult
    from dpa2calc.training.runs.processes import Processes

    File = TypeVar("File", bound=LoopFile[Any, Any])

_FIELDS = (
    "steps done; best_score of validation; model: its file; test_errors of each test set: energies and "
    "virials in meV/atom, forces in meV/Å; failed: test sets on which the model is worse than none"
)
_MOST_THREADS = 1024
# What users may have called their labels.
LABELS = {"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_stress", "virial": "virials"}


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """Names of the labels in the files, as in `LabelKeys`."""
    for kind, example in LABELS.items():
        text = f"name of the {kind} in the files, such as {example}"
        parser.add_argument(f"--{kind}-key", metavar="NAME", help=text)


def label_names(args: argparse.Namespace) -> dict[str, str]:
    """The names that were given, by kind."""
    given = {kind: getattr(args, f"{kind}_key") for kind in LABELS}
    return {kind: name for kind, name in given.items() if name is not None}


def add_run_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --output, --threads and --no-progress."""
    parser.add_argument("--output", metavar="FOLDER", help=f"folder for all files of the {what}")
    parser.add_argument("--threads", type=int, help="threads of the matrix products")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars on stderr")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that `train` and `finetune` share."""
    add = parser.add_argument
    add("config", nargs="?", metavar="CONFIG", help="TOML file, or deepmd-kit's input.json")
    add("--train", nargs="+", metavar="FILE", help="training frames, for a run with one set")
    add("--validation", nargs="+", metavar="FILE", help="validation frames")
    add("--test", nargs="+", metavar="FILE", help="evaluated at the end")
    add("--head", metavar="NAME", help="name of the head that is trained")
    add_label_arguments(parser)
    add_run_arguments(parser, "run")


def read_run(args: argparse.Namespace, cls: type[Options], model: str | None) -> RunFile[Options]:
    """The file and, put over it, what the command line says.

    Raises:
        ConfigError, OutputError: see `read_run_file` and `check_paths`.
    """
    from dpa2calc.files.options import given_options
    from dpa2calc.training.config.run_file import read_run_file

    given = {name: getattr(args, name) for name in ("train", "validation", "test", "head")}
    keys = {f"{kind}_key": name for kind, name in label_names(args).items()}
    return read_run_file(
        args.config,
        cls,
        changes=given_options(args, cls),
        set_changes={**{name: value for name, value in given.items() if value is not None}, **keys},
        model=model,
        output=args.output,
    )


def add_rounds_arguments(parser: argparse.ArgumentParser, what: str, options: type) -> None:
    """Options that `distill` and `learn` share, and those of their loop."""
    from dpa2calc.files.options import add_options

    parser.add_argument("config", metavar="CONFIG", help="TOML file")
    add_run_arguments(parser, what)
    add_options(parser, options, title="options of the loop (also keys of the file)")


def run_rounds(
    args: argparse.Namespace, kind: type[File], work: Callable[..., RoundsResult], quantiles: str
) -> int:
    """Read and check a file, work through its rounds, report.

    Args:
        kind: the class of the file.
        work: takes the file and the start frames, and by name what every loop takes.
        quantiles: the field of a round that the table has.
    """
    from dpa2calc.files.atomic import check_writable
    from dpa2calc.files.options import given_options
    from dpa2calc.training.exploration.file import load_set, load_start

    file = kind(args.config, changes=given_options(args, kind.loop), output=args.output)
    check_writable(file.output, folder=True)
    start = load_start(file.start, file.root)
    set_threads(args)
    result = work(
        file, start, md=file.md, output=file.output, train=file.train, config=file.config,
        test=load_set(file.test, file.root, "test"), progress=not args.no_progress,
    )  # fmt: skip
    print(result.summary())
    write_result(args, result, rounds_to_table(result.rounds, quantiles))
    return 0


def set_threads(args: argparse.Namespace) -> None:
    """Threads, before anything is computed.

    Raises:
        ConfigError: fewer than one, or more than any machine has.
    """
    if args.threads is not None:
        if not 1 <= args.threads <= _MOST_THREADS:
            raise ConfigError(f"--threads is {args.threads}; give a whole number from 1 to {_MOST_THREADS}")
        import torch

        torch.set_num_threads(args.threads)


def finish(
    args: argparse.Namespace,
    result: TrainResult,
    sets: Mapping[str, TrainingSet],
    test: Mapping[str, Dataset],
    config: TrainConfig,
    *,
    processes: Processes,
    progress: bool,
) -> int:
    """Evaluate on the test sets, write the run's files, print errors and file; the exit code."""
    from dpa2calc.files.typed import to_dict
    from dpa2calc.training.runs.report import finish_run

    if not processes.first:
        return 0
    values = {name: getattr(result, name) for name in ("output", "steps", "finished", "best_score")}
    table = rows_to_table([*result.history.train, *result.history.validation])
    if not result.finished:
        write_values(args, (type(result).__name__, _FIELDS), values, table)
        print(f"stopped at step {result.steps} by time_limit; the same command resumes", file=sys.stderr)
        return 0
    report = finish_run(result, sets, test, config=config, progress=progress)
    print(report.text, end="")
    print(f"model: {report.file}")
    errors = {name: to_dict(found.errors) for name, found in report.evaluations.items()}
    values |= {"model": report.file, "test_errors": errors, "failed": report.failed}
    write_values(args, (type(result).__name__, _FIELDS), values, table)
    if report.failed:
        print(f"error: worse than no model on {', '.join(report.failed)}; see above", file=sys.stderr)
        return 1
    return 0
