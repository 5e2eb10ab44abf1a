"""One task on many structures, on any executor: `screen`."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ase.calculators.singlepoint import SinglePointCalculator

from dpa2calc.applications.shared.application import application, application_writing
from dpa2calc.errors import ConfigError, DPA2CalcError, StructureError
from dpa2calc.files.identity import calculator_identity
from dpa2calc.files.results import ShownBySummary
from dpa2calc.files.typed import to_json
from dpa2calc.progress import progress_bar

from .records import Record, failed
from .sources import Item, iread_items
from .stores import Store, open_store
from .tasks import Task, checked_options, jobs, run, run_remotely

_log = logging.getLogger(__name__)
_IN_FLIGHT = 128  # jobs


@dataclass(frozen=True, kw_only=True, repr=False)
class Screening(ShownBySummary):
    """What `screen` did; the results are in the file.

    Attributes:
        task, output: as given.
        n_done, n_failed: structures of this call; n_earlier: those that the file held already.
        failures: name and reason of each structure that failed.
    """

    task: str
    output: str
    n_done: int
    n_failed: int
    n_earlier: int
    failures: tuple[tuple[str, str], ...] = ()

    def records(self) -> list[Record]:
        """All records of the file, see `read_screening`."""
        return read_screening(self.output)

    def summary(self) -> str:
        """How many of which, and where they are."""
        earlier = f", {self.n_earlier} were there already" if self.n_earlier else ""
        return f"{self.task}: {self.n_done} done, {self.n_failed} failed{earlier}; results in {self.output}"


@application
def read_screening(path: str | os.PathLike[str]) -> list[Record]:
    """The records of a file of `screen`, in the order in which they were made.

    Each is a dictionary: `key`, `name`, `formula`, `status` ("done" or "failed", then with `error`),
    `warnings`, `numbers`, `positions`, `cell`, `pbc` of the final structure, what else it carried (masses,
    charges, magnetic moments, tags, remarks) in `attached`, and `results`. Units are those
    of the applications' results (ASE's; moduli in GPa, phonons in THz, vibrations in 1/cm).

    Raises:
        ConfigError, DataError: no file of `screen`.
    """
    if not any(Path(f"{path}{ending}").is_file() for ending in ("", ".jsonl")):  # the second of a kill
        raise ConfigError(f"there is no file {path}")
    with closing(open_store(Path(path), None)) as store:
        return list(store.records())


@application_writing("output")
def screen(
    structures: Any,
    task: Task,
    *,
    output: str | os.PathLike[str],
    calculator: Any = None,
    executor: Any = None,
    progress: bool = True,
    **options: Any,
) -> Screening:
    """Do one task on many structures; each result is on disk as soon as it is there.

    A structure that cannot be read or computed is reported in one line (a warning of the log), recorded, and
    passed over. Calling again with the same output resumes, also after a kill: what is done is not computed
    again, failures are tried again. Records come in the order in which they are finished.

    A calculator with a method `evaluate`, as `DPA2Calculator`, computes small structures together: those of
    "evaluate", and those of "relax" with up to 64 atoms, 64 at a time and each with its own optimiser.

    Args:
        structures: a list or iterator of Atoms or pymatgen structures; a file that ASE reads (extxyz, ASE's
            db, cif ...) or a frame "file@N" of it, a folder of files, a pattern such as "cifs/*.cif", or
            a list of these. An output in that folder is none of them.
        task: "evaluate" (energy, forces, stress), or the application that is done with each.
        output: NAME.db (an ASE database), NAME.jsonl (lines of JSON) or NAME.parquet; `read_screening` reads
            all of them.
        calculator: None takes that of the first structure. With an executor it is pickled and sent.
        executor: any `concurrent.futures.Executor`: a process pool, that of a Dask client, of mpi4py, loky.
            None works in this process. Make its processes single-threaded (OMP_NUM_THREADS=1).
        options: of the application, such as fmax=0.02.

    Raises:
        ConfigError: an option that the task does not have, or a wrong value, an output of other work, a
            calculator that cannot be sent, or an executor whose processes died.
        DataError: no such file or folder. OutputError: the output cannot be written.

    Example:
        >>> with ProcessPoolExecutor(2) as pool:
        ...     screen("cifs", "relax", calculator=calc, executor=pool, output="relaxed.db", relax="cell")
    """
    if executor is not None and not isinstance(executor, Executor):
        raise ConfigError(
            f"executor is a {type(executor).__name__}; it must be a concurrent.futures.Executor: for a Dask "
            "client, client.get_executor()"
        )
    checked = checked_options(task, options)
    items = iread_items(structures, Path(output))
    if calculator is None:
        items, calculator = _first_calculator(items)
    payload = b"" if executor is None else _packed(calculator)  # before it is asked anything and loads itself
    identity = {
        "task": {"name": task, **to_json(options)},
        "calculator": calculator_identity(calculator),
    }
    with closing(open_store(Path(output), identity)) as store:
        counts = _Counts(store)
        left = counts.left(items)
        with progress_bar(unit="structure", desc=task, shown=progress) as bar:
            made = (
                run(calculator, task, checked, left)
                if executor is None
                else _remote(executor, payload, task, checked, jobs(calculator, task, left), str(output))
            )
            for records in counts.with_unread(made):
                store.append(records)
                counts.take(records)
                bar.update(len(records))
    return Screening(
        task=task, output=str(output), n_done=counts.done, n_failed=len(counts.failures),
        n_earlier=counts.earlier, failures=tuple(counts.failures),
    )  # fmt: skip


class _Counts:
    """What was there, what is left, what cannot be read, and what became of it."""

    def __init__(self, store: Store) -> None:
        self._there = {key for key, status in store.statuses().items() if status == "done"}
        self._unread: list[Record] = []
        self.done = self.earlier = 0
        self.failures: list[tuple[str, str]] = []

    def left(self, items: Iterator[Item]) -> Iterator[Item]:
        """Those that have to be computed."""
        for item in items:
            if item.key in self._there:
                self.earlier += 1
            elif item.atoms is None:
                self._unread.append(failed(item, item.problem))
            else:  # a copy has no calculator, and may be changed
                yield dataclasses.replace(item, atoms=item.atoms.copy())

    def with_unread(self, made: Iterator[list[Record]]) -> Iterator[list[Record]]:
        """The records that are made, and those of structures that could not be read."""
        for records in made:
            yield records
            if self._unread:
                yield self._taken()
        if self._unread:
            yield self._taken()

    def _taken(self) -> list[Record]:
        records, self._unread = self._unread, []
        return records

    def take(self, records: Sequence[Record]) -> None:
        """Count them, and report failures."""
        for record in records:
            if record["status"] == "done":
                self.done += 1
            else:
                self.failures.append((record["name"], record["error"]))
                _log.warning("%s (%s) failed: %s", record["name"], record["formula"], record["error"])


def _remote(
    executor: Executor,
    payload: bytes,
    task: Task,
    options: Mapping[str, object],
    portions: Iterator[list[Item]],
    output: str,
) -> Iterator[list[Record]]:
    """Records as the executor makes them; only so many jobs are handed to it at once."""
    waiting: set[Future[list[Record]]] = set()
    try:
        while True:
            for job in islice(portions, _IN_FLIGHT - len(waiting)):
                waiting.add(executor.submit(run_remotely, payload, task, options, job))
            if not waiting:
                return
            ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                yield future.result()
    except DPA2CalcError:  # a file that is not there
        raise
    except Exception as error:  # each kind of executor has its own
        raise ConfigError(
            f"the executor failed ({type(error).__name__}: {error}); is there enough memory? "
            f"What is done is in {output}: call again with a new executor to resume"
        ) from error
    finally:
        for future in waiting:
            future.cancel()


def _first_calculator(items: Iterator[Item]) -> tuple[Iterator[Item], Any]:
    """The calculator of the first structure, and all structures again."""
    first = next(items, None)
    calculator = None if first is None or first.atoms is None else first.atoms.calc
    if first is None or calculator is None or isinstance(calculator, SinglePointCalculator):
        raise StructureError("no calculator: give calculator=..., or set it on the first structure")

    def again() -> Iterator[Item]:
        yield first
        yield from items

    return again(), calculator


def _packed(calculator: Any) -> bytes:
    try:
        return pickle.dumps(calculator)
    except Exception as error:  # pickle raises whatever the object does
        raise ConfigError(
            f"the {type(calculator).__name__} cannot be sent to the executor's processes ({error}); take one "
            "that can be pickled, as DPA2Calculator can"
        ) from error
