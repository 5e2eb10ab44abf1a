"""What a training run returns, and how results are kept whose files lie in a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dpa2calc.errors import CheckpointError, DataError
from dpa2calc.files.atomic import write_json
from dpa2calc.files.figures import Axes
from dpa2calc.files.opening import PathLike
from dpa2calc.files.results import Result, from_plain
from dpa2calc.files.typed import option_types, to_dict
from dpa2calc.labels.errors import Errors
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training.data.readers.frame_file import read_json

from .log import History

LAST_FILE = "last.safetensors"  # the weights of `TrainResult.potential`
Kept = TypeVar("Kept", bound="RunResult")


class RunResult(Result):
    """A result whose weights and frames stay in the folder `output`."""

    output: Path

    def save(self, path: PathLike) -> Path:
        """Write JSON; the file is renamed into place when whole. Paths are kept relative to `output`."""
        names = [f.name for f in dataclasses.fields(self) if f.name != "doubt"]  # which is of applications
        values = {name: self._plain(getattr(self, name)) for name in names}
        write_json(path, {"kind": type(self).__name__, **values, "output": str(self.output)})
        return Path(path)

    def _plain(self, value: object) -> object:
        if isinstance(value, Potential):
            return LAST_FILE
        if isinstance(value, tuple) and value and all(isinstance(item, Path) for item in value):
            return [self._plain(item) for item in value]
        if isinstance(value, Path) and value.is_relative_to(self.output):
            return str(value.relative_to(self.output))
        return to_dict(value)

    @classmethod
    def load(cls: type[Kept], path: PathLike) -> Kept:
        """Read what `save` wrote; files are looked for beside it where the old folder is gone.

        Raises:
            DataError: the file is something else, or damaged. CheckpointError: the weights are gone.
        """
        source = Path(path)
        values = read_json(source)
        if not isinstance(values, dict) or values.pop("kind", None) != cls.__name__:
            raise DataError(f"{source} is not a result written by {cls.__name__}.save")
        try:
            output = Path(values["output"])
            output = output if output.is_dir() else source.parent
            for name, hint in option_types(cls).items():
                if hint == tuple[Path, ...]:
                    values[name] = tuple(output / item for item in values[name])
                elif hint in (Path, Potential):
                    place = output / values[name]
                    values[name] = place if hint is Path else load_checkpoint(place)
            return from_plain(cls, {**values, "output": output})
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{source} is damaged: {error!r}; make the same call again") from error


@dataclass(frozen=True)
class TrainResult(RunResult):
    """What a run leaves: the potential with the weights to use, the log, and the files' folder.

    `finished` is False when the time limit stopped it; the same call resumes. `save` leaves the weights in
    the folder, where `load` takes them from.
    """

    potential: Potential
    history: History
    output: Path
    steps: int
    finished: bool
    best_score: float | None

    def summary(self) -> str:
        """Steps, the last errors of each set, and where the files are."""
        end = "finished" if self.finished else "stopped by its time limit; the same call resumes"
        return "\n".join([f"{self.steps} steps, {end}", *self.history.last_errors(), f"files: {self.output}"])

    def plot(self, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
        """The learning curve, see `History.plot`; returns the two axes."""
        return self.history.plot(axes)

    def zero_shot(self) -> Errors | None:
        """Errors of the model that the run began with on its data, where they were measured."""
        return None
