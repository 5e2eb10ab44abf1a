"""`learning_curve`: test errors by number of training frames (paper, figures 3 and S1)."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpa2calc.ambient import own_modes
from dpa2calc.errors import DataError
from dpa2calc.files.figures import Axes, panels_for
from dpa2calc.files.identity import Part
from dpa2calc.files.names import file_stems
from dpa2calc.files.results import Result, provenance
from dpa2calc.files.typed import typed
from dpa2calc.model.config import ModelConfig, check, to_dict
from dpa2calc.model.potential import Potential
from dpa2calc.store.load import load_model
from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
from dpa2calc.training.data.checks.report import check_frames
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.finetune.finetune import finetune
from dpa2calc.training.fit.run import train
from dpa2calc.training.runs.folder import remove_large_files, run_folder
from dpa2calc.training.runs.identity import data_identity, model_part, options_part, start_part

from .curve_points import Point, Points
from .evaluate import evaluate

# What trains on a subset and leaves its files in a folder; returns a potential whose first head is meant.
Scheme = Callable[[Dataset, Path], Potential]


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
                cells.append(f"{_number(e.energy_rmse)} / {_number(e.force_rmse)}" if e else "")
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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


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
    """A scheme that trains a new model; `model` may depend on the data."""

    def chosen(data: Dataset) -> ModelConfig:
        return model(data) if callable(model) else model

    def run(data: Dataset, folder: Path) -> Potential:
        return train(chosen(data), data, config, output=folder, progress=progress).potential

    def identity(data: Dataset) -> dict[str, Part]:
        return {"options": _options(config), "model": model_part(chosen(data))}

    return _Trained(run, identity)


def fine_tuned(model: Potential | PathLike, config: FinetuneConfig, *, progress: bool = False) -> Scheme:
    """A scheme that fine-tunes a pre-trained model."""

    def run(data: Dataset, folder: Path) -> Potential:
        return finetune(model, data, config, output=folder, progress=progress).potential

    @functools.cache
    def start() -> Part:
        return start_part(model if isinstance(model, Potential) else load_model(os.fspath(model)))

    def identity(data: Dataset) -> dict[str, Part]:
        return {"options": _options(config), "starting model": start()}

    return _Trained(run, identity)


def _options(config: TrainConfig) -> Part:
    return {**options_part(to_dict(config)), "steps": config.steps}


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
        check_frames(part.name, part)
    own = {scheme: _sizes(sizes[scheme] if isinstance(sizes, Mapping) else sizes) for scheme in schemes}
    names = file_stems(schemes)
    seed = typed(int, seed, "seed")
    samples = {n: data.sample(n, seed=seed) for n in sorted(set().union(*own.values()))}
    frames = {n: data_identity(sample) for n, sample in samples.items()}
    tested = data_identity(test)
    with run_folder(output) as folder:
        made = Points(folder / "points.jsonl")
        identities = {
            (scheme, n): _identity(run, samples[n], {"training data": frames[n], "test data": tested})
            for n in samples
            for scheme, run in schemes.items()
            if n in own[scheme]
        }
        made.check(identities)
        for (scheme, n), identity in identities.items():
            if made.has(scheme, n):
                continue
            place = folder / f"{names[scheme]}-{n}"
            potential = schemes[scheme](samples[n], place)
            name = potential.config.heads[0].name
            made.add(Point(scheme, n, evaluate(potential, test, head=name).errors), identity)
            if not keep_runs:
                remove_large_files(place)
        wanted = [p for p in made.points if p.n_frames in own.get(p.scheme, ())]
    return LearningCurve(data.name, tuple(wanted), provenance=provenance(seed=seed))


def _sizes(sizes: Sequence[int]) -> set[int]:
    found = {typed(int, n, "sizes") for n in sizes}
    check(min(found, default=1) > 0, "sizes", sorted(found), "numbers of frames, at least 1 each")
    return found


def _identity(run: Scheme, sample: Dataset, parts: dict[str, Part]) -> dict[str, Part]:
    """Of a point; what a caller's own scheme does cannot be known."""
    return {**parts, **(run.identity(sample) if isinstance(run, _Trained) else {})}
