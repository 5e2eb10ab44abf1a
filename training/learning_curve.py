"""`learning_curve`: test errors by number of training frames (paper, figures 3 and S1)."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpa2calc.ambient import own_modes
from dpa2calc.errors import DataError
from dpa2calc.files.figures import Axes, panels_for
from dpa2calc.files.identity import Identity, Part, require_same
from dpa2calc.files.json_lines import read_json_lines, write_json_lines
from dpa2calc.files.names import file_stems
from dpa2calc.files.results import Result, from_plain, provenance
from dpa2calc.files.typed import to_dict, typed
from dpa2calc.labels.errors import Errors
from dpa2calc.model.config import ModelConfig, check
from dpa2calc.model.potential import Potential
from dpa2calc.store.load import load_model
from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
from dpa2calc.training.data.checks.report import check_frames
from dpa2calc.training.data.dataset import Dataset, require_dataset
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.exploration.rounds import number
from dpa2calc.training.finetune.finetune import finetune
from dpa2calc.training.fit.run import train
from dpa2calc.training.runs.folder import remove_large_files, run_folder
from dpa2calc.training.runs.identity import data_identity, model_part, options_part, start_part

from .evaluate import evaluate

logger = logging.getLogger(__name__)
_POINTS_FILE = "points.jsonl"
# What trains on a subset and leaves its files in a folder; returns a potential whose first head is meant.
Scheme = Callable[[Dataset, Path], Potential]


@dataclass(frozen=True)
class Point:
    """Test errors of one scheme trained on `n_frames` frames."""

    scheme: str
    n_frames: int
    errors: Errors


@dataclass(frozen=True)
class LearningCurve(Result):
    """All points of one dataset."""

    name: str
    points: tuple[Point, ...]

    def series(self, scheme: str, quantity: str = "force_rmse") -> tuple[list[int], list[float]]:
        """Frames and errors of one scheme, by increasing number of frames."""
        chosen = sorted((p for p in self.points if p.scheme == scheme), key=lambda p: p.n_frames)
        pairs = [(p.n_frames, getattr(p.errors, quantity)) for p in chosen]
        known = [(n, float(v)) for n, v in pairs if v is not None]
        return [n for n, _ in known], [v for _, v in known]

    def schemes(self) -> tuple[str, ...]:
        """Names of the schemes."""
        return tuple(dict.fromkeys(p.scheme for p in self.points))

    def frames_saved(self, scheme: str, reference: str, quantity: str = "force_rmse") -> float | None:
        """How many times fewer frames `scheme` needs to reach the error of `reference` at its largest size.

        Between two points log(error) is interpolated in log(frames). A lower bound when the smallest size
        of `scheme` is already better; None when it never gets there.
        """
        sizes, errors = self.series(reference, quantity)
        own_sizes, own_errors = self.series(scheme, quantity)
        if not sizes or not own_sizes:
            raise DataError(
                f"no points of {scheme!r} or {reference!r}; there are {', '.join(self.schemes())}"
            )
        target = errors[-1]
        if own_errors[0] <= target:
            return sizes[-1] / own_sizes[0]
        for i in range(1, len(own_sizes)):
            if own_errors[i] <= target:
                part = math.log(own_errors[i - 1] / target) / math.log(own_errors[i - 1] / own_errors[i])
                needed = own_sizes[i - 1] * (own_sizes[i] / own_sizes[i - 1]) ** part
                return sizes[-1] / needed
        return None

    def summary(self) -> str:
        """A table: a row a size, two columns (energy and force RMSE) a scheme."""
        sizes = sorted({p.n_frames for p in self.points})
        found = {(p.scheme, p.n_frames): p.errors for p in self.points}
        lines = [f"{self.name}: RMSE of energy (meV/atom) / forces (meV/Å) on the test set"]
        lines.append(f"{'frames':>8}" + "".join(f"{s:>24}" for s in self.schemes()))
        for n in sizes:
            cells = []
            for scheme in self.schemes():
                e = found.get((scheme, n))
                cells.append(f"{number(e.energy_rmse)} / {number(e.force_rmse)}" if e else "")
            lines.append(f"{n:>8}" + "".join(f"{cell:>24}" for cell in cells))
        return "\n".join(lines)

    def plot(self, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
        """Energy and force RMSE against frames, both logarithmic; returns the two axes."""
        from matplotlib.ticker import NullFormatter, NullLocator, StrMethodFormatter

        axes = panels_for(axes, 2, (9, 4))
        sizes = sorted({n for scheme in self.schemes() for n in self.series(scheme)[0]})
        for axis, quantity, label in (
            (axes[0], "energy_rmse", "energy RMSE (meV/atom)"),
            (axes[1], "force_rmse", "force RMSE (meV/Å)"),
        ):
            for scheme in self.schemes():
                axis.plot(*self.series(scheme, quantity), "o-", label=scheme)
            axis.set(xlabel="training frames", ylabel=label, xscale="log", yscale="log", title=self.name)
            axis.set_xticks(sizes, [str(n) for n in sizes])
            axis.xaxis.set_minor_locator(NullLocator())
            low, high = axis.get_ylim()
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            # Within a decade the labels are those of the minor ticks.
            axis.yaxis.set_minor_formatter(
                StrMethodFormatter("{x:g}") if high < 10 * low else NullFormatter()
            )
        axes[1].legend()
        return axes


class Points:
    """The file `points.jsonl`: points with what they belong to, None in files of earlier versions."""

    def __init__(self, path: Path):
        self.path = path
        self.found: list[tuple[Point, Identity | None]] = []
        if path.exists():
            self.found = read_json_lines(path, _taken, "point of a learning curve", "choose another output")

    def check(self, wanted: Mapping[tuple[str, int], Identity]) -> None:
        """Raise a ConfigError for a point of other data, options or models; it is named, and what differs."""
        unknown = 0
        for place, (point, stored) in enumerate(self.found):
            asked = wanted.get((point.scheme, point.n_frames))
            if asked is not None and stored is None:
                unknown += 1
                self.found[place] = point, asked
            elif asked is not None and stored is not None:
                require_same(
                    stored,
                    asked,
                    where=f"the point {point.scheme!r} of {point.n_frames} frames in {self.path}",
                    ways="Remove its line to make it again, or choose another output",
                )
        if unknown:
            logger.warning(
                "%d points of %s are of an earlier version, which kept no record of data and options: "
                "whether they are the same cannot be checked",
                unknown,
                self.path,
            )
            self._write()

    def add(self, point: Point, identity: Identity) -> None:
        """Keep one more point."""
        self.found.append((point, identity))
        self._write()

    def _write(self) -> None:
        write_json_lines(self.path, ({**to_dict(p), "identity": identity} for p, identity in self.found))


def _taken(record: dict[str, object]) -> tuple[Point, Identity | None]:
    """What stands in a line; an error of Python's own where it is something else."""
    identity = typed(dict[str, Part] | None, record.pop("identity", None), "identity")
    return from_plain(Point, record), identity


@dataclass(frozen=True)
class _Trained:
    """A scheme of this package, which can say what it is made of."""

    run: Scheme
    identity: Callable[[Dataset], dict[str, Part]]

    def __call__(self, data: Dataset, folder: Path) -> Potential:
        return self.run(data, folder)


def from_scratch(
    model: ModelConfig | Callable[[Dataset], ModelConfig], config: TrainConfig, *, progress: bool = False
) -> Scheme:
    """A scheme that trains a new model; `model` may depend on the data.

    Raises:
        ConfigError: `config` has a time limit, so that a point could be of half a run.
    """
    _require_whole(config)

    def chosen(data: Dataset) -> ModelConfig:
        return model(data) if callable(model) else model

    def run(data: Dataset, folder: Path) -> Potential:
        return train(chosen(data), data, config, output=folder, progress=progress).potential

    def identity(data: Dataset) -> dict[str, Part]:
        return {"options": _options(config), "model": model_part(chosen(data))}

    return _Trained(run, identity)


def fine_tuned(model: Potential | PathLike, config: FinetuneConfig, *, progress: bool = False) -> Scheme:
    """A scheme that fine-tunes a pre-trained model.

    Raises:
        ConfigError: see `from_scratch`.
    """
    _require_whole(config)

    def run(data: Dataset, folder: Path) -> Potential:
        return finetune(model, data, config, output=folder, progress=progress).potential

    @functools.cache
    def start() -> Part:
        return start_part(model if isinstance(model, Potential) else load_model(os.fspath(model)))

    def identity(data: Dataset) -> dict[str, Part]:
        return {"options": _options(config), "starting model": start()}

    return _Trained(run, identity)


def _require_whole(config: TrainConfig) -> None:
    limit = config.time_limit
    check(not limit, "time_limit", limit, "0 in a learning curve; stop it at any time, the same call resumes")


def _options(config: TrainConfig) -> Part:
    length = {"minutes": config.minutes} if config.minutes else {"steps": config.steps}
    return {**options_part(to_dict(config)), **length}


@own_modes()
def learning_curve(
    data: Dataset,
    test: Dataset,
    *,
    sizes: Sequence[int] | Mapping[str, Sequence[int]],
    schemes: Mapping[str, Scheme],
    output: PathLike,
    seed: int = 0,
    keep_runs: bool = False,
) -> LearningCurve:
    """Train every scheme on nested samples of the data and evaluate on one test set.

    Finished points are read back from `output/points.jsonl`, so the same call resumes after a stop.

    Args:
        sizes: numbers of training frames, for all schemes or by scheme; the smaller samples are parts of
            the larger ones.
        schemes: by name, see `from_scratch` and `fine_tuned`.
        keep_runs: keep the files of finished runs.

    Raises:
        ConfigError: a point in the folder is of other data, options or models (what differs is named), or
            another process is at work there.
        DataError: a sample is larger than the data, or the file of points is damaged.

    Example:
        >>> schemes = {"scratch": from_scratch(config, TrainConfig(steps=2000)),
        ...            "fine-tuned": fine_tuned("default", FinetuneConfig(steps=1000))}
        >>> learning_curve(data, test, sizes=(10, 30, 100), schemes=schemes, output="runs/curve").summary()
    """
    for part in (data, test):
        require_dataset(part, "data" if part is data else "test")
        check_frames(part.name, part)
    own = {scheme: _sizes(sizes[scheme] if isinstance(sizes, Mapping) else sizes) for scheme in schemes}
    names = file_stems(schemes)
    seed = typed(int, seed, "seed")
    samples = {n: data.sample(n, seed=seed) for n in sorted(set().union(*own.values()))}
    frames = {n: data_identity(sample) for n, sample in samples.items()}
    tested = data_identity(test)
    with run_folder(output, mark=_POINTS_FILE) as folder:
        made = Points(folder / _POINTS_FILE)
        identities = {
            (scheme, n): {
                "training data": frames[n],
                "test data": tested,
                # what a caller's own scheme does cannot be known
                **(run.identity(samples[n]) if isinstance(run, _Trained) else {}),
            }
            for n in samples
            for scheme, run in schemes.items()
            if n in own[scheme]
        }
        made.check(identities)
        known = {(point.scheme, point.n_frames) for point, _ in made.found}
        for (scheme, n), identity in identities.items():
            if (scheme, n) in known:
                continue
            place = folder / f"{names[scheme]}-{n}"
            potential = schemes[scheme](samples[n], place)
            name = potential.config.heads[0].name
            made.add(Point(scheme, n, evaluate(potential, test, head=name).errors), identity)
            if not keep_runs:
                remove_large_files(place)
        wanted = [p for p, _ in made.found if p.n_frames in own.get(p.scheme, ())]
    return LearningCurve(data.name, tuple(wanted), provenance=provenance(seed=seed))


def _sizes(sizes: Sequence[int]) -> set[int]:
    found = {typed(int, n, "sizes") for n in sizes}
    check(min(found, default=1) > 0, "sizes", sorted(found), "numbers of frames, at least 1 each")
    return found
