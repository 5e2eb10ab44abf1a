"""`dpa2calc screen`: one task on many structures, in one process or several."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import threading
from typing import TYPE_CHECKING

from dpa2calc.cli.arguments.output import check_files, stem
from dpa2calc.cli.arguments.structures import add_calculator_arguments, make_calculator
from dpa2calc.cli.arguments.written import rows_to_table, write_values
from dpa2calc.errors import ConfigError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from dpa2calc.applications.screening.screen import Screening

EXAMPLE = """\
example: relax all structures of a kind with two processes
  dpa2calc screen '*.cif' --task relax --option relax=cell --head mlearn-PBE --processes 2 --out relaxed.db

The output (NAME.db, an ASE database, NAME.jsonl, lines of JSON, or NAME.parquet) grows as results come. The
same command resumes, also after a kill; structures that fail are reported in one line each, passed over, and
tried again by the next call. dpa2calc.applications.read_screening reads all formats.
"""
TASKS = ("evaluate", "relax", "eos", "elastic", "phonons", "vibrations")
TABLE = "a row a structure"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("structures", nargs="+", metavar="FILE", help="files, folders or patterns; see ASE")
    add_calculator_arguments(parser)
    group = parser.add_argument_group("screening")
    group.add_argument("--task", choices=TASKS, default="evaluate", help="what is done with each structure")
    group.add_argument(
        "--option", dest="options", action="append", default=[], metavar="NAME=VALUE",
        help="an option of the application, such as fmax=0.02; may be given several times",
    )  # fmt: skip
    group.add_argument("--processes", type=int, default=1, help="each with one thread")
    output = parser.add_argument_group("output")
    text = ".db, .jsonl or .parquet (default: NAME-TASK.db, NAME from the one file or folder, or screening)"
    output.add_argument("--out", dest="output", metavar="FILE", help=text)
    output.add_argument("--no-progress", action="store_true", help="no progress bar on stderr")


def run(args: argparse.Namespace) -> int:
    """Run the verb; 1 if no structure could be done."""
    from dpa2calc.applications.screening.screen import screen
    from dpa2calc.applications.screening.tasks import checked_options

    output = args.output or _output(args)
    check_files(output)
    options = dict(_option(text) for text in args.options)
    checked_options(args.task, options)  # before one of them takes the place of what screen itself is given
    executor = _executor(args.processes)
    try:
        result = screen(
            args.structures,
            args.task,
            output=output,
            calculator=make_calculator(args),
            executor=executor,
            progress=not args.no_progress,
            **options,
        )
    finally:
        if executor is not None:
            executor.shutdown(cancel_futures=True)
    print(result.summary())
    if args.json is not None or args.csv is not None:
        _write(args, result)
    return 0 if result.n_done + result.n_earlier else 1


def _output(args: argparse.Namespace) -> str:
    """Named after the one file or folder that is given."""
    given = args.structures[0]
    name = stem(given) if len(args.structures) == 1 and os.path.exists(given) else "screening"
    return f"{name}-{args.task}.db"


def _write(args: argparse.Namespace, result: Screening) -> None:
    """All records of the output, for scripts; the table has of their results what is one number or word."""
    from dpa2calc.applications.screening.records import UNITS
    from dpa2calc.files.results import provenance

    records = result.records()
    made_by = {**provenance(), "task": result.task, "output": result.output}
    values = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    fields = f"n_done and n_failed of this call, n_earlier: done before. records: of the output, in {UNITS}"
    rows = []
    for record in records:
        row = {name: record.get(name) for name in ("name", "formula", "status", "error")}
        for name, value in record.get("results", {}).items():
            if not isinstance(value, (list, dict)):
                row[f"{name} ({UNITS[name]})" if name in UNITS else name] = value
        rows.append(row)
    told = ("screen", fields)
    write_values(args, told, {**values, "records": records}, rows_to_table(rows), made_by=made_by)


def _option(text: str) -> tuple[str, object]:
    """NAME=VALUE, the value as JSON has it; a word needs no quotes."""
    name, equal, value = text.partition("=")
    if not equal:
        raise ConfigError(f"--option {text} is not understood; write NAME=VALUE, for example fmax=0.02")
    try:
        return name.strip().replace("-", "_"), json.loads(value)
    except json.JSONDecodeError:
        return name.strip().replace("-", "_"), value


def _executor(processes: int) -> Executor | None:
    if processes < 1:
        raise ConfigError(f"processes is {processes}; it must be at least 1")
    if processes == 1:
        return None
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # forked processes hang where the parent has used OpenMP
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_worker)


def _begin_worker() -> None:
    """Before torch is loaded in a process: give it one thread, and an end with the process that made it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Workers of a pool whose parent was killed wait for work, and hold their memory, for ever."""
    import multiprocessing

    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
