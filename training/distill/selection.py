"""What a round of a distillation measures and decides: deviations, which frames to add, when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dpa2calc.labels.errors import Differences, Errors, ErrorSums
from dpa2calc.model.potential import Potential
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.exploration.diversity import farthest_points, mean_descriptors
from dpa2calc.training.exploration.rounds import Round, number
from dpa2calc.training.fit.predict import predict_potential

from .config import DistillConfig

StopReason = Literal["", "accurate", "unchanged", "nothing to add", "max_rounds"]


@dataclass(frozen=True, kw_only=True)
class DistillRound(Round):
    """One round: what the student was trained on, and how it did on frames that it had not seen.

    Attributes:
        explored: sampled frames, all labelled by the teacher.
        errors: of the student against the teacher on them.
        deviations: 5, 25, 50, 75, 95 and 100 % quantiles of the frames' largest force deviation, eV/Å.
        accurate: frames within the threshold. over: between it and the upper bound. exploded: above.
        upper_bound: eV/Å, that was in force; None in files of earlier versions.
    """

    errors: Errors
    deviations: tuple[float, ...]
    over: int
    exploded: int
    upper_bound: float | None = None

    @property
    def quantiles(self) -> tuple[float, ...]:
        """The deviations."""
        return self.deviations

    def own_cells(self) -> dict[str, str]:
        """Frames over the threshold and over the bound; errors, and the median largest deviation."""
        return {
            "over": str(self.over),
            "out": str(self.exploded),
            "added": str(self.added),
            "E RMSE": number(self.errors.energy_rmse),
            "F RMSE": number(self.errors.force_rmse),
            "max dev": number(1e3 * self.deviations[2]),
        }


def force_deviations(
    data: Dataset, potential: Potential, *, device: str | None = None
) -> tuple[Errors, np.ndarray]:
    """Errors against the labels, and of each frame max_i |F_i - label_i|, eV/Å, (n_frames,).

    A prediction that is not finite counts as an infinite deviation.
    """
    sums, deviations = ErrorSums(), np.zeros(len(data))
    for i, (frame, made) in enumerate(zip(data, predict_potential(potential, data, device=device))):
        difference = Differences.of(frame, made, frame.n_atoms)
        sums.add(difference)
        deviations[i] = np.linalg.norm(difference.forces, axis=1).max()
    deviations[~np.isfinite(deviations)] = np.inf
    return sums.errors(), deviations


def choose_frames(
    data: Dataset, deviations: np.ndarray, potential: Potential, config: DistillConfig
) -> list[int]:
    """Indices, ascending, of the frames to learn from.

    They deviate by more than the threshold and not more than the upper bound. Where there are more
    than `frames_per_round`, the one that deviates most is taken first, then always the one that is
    farthest, by the student's mean descriptor of each element, from those taken (farthest-point sampling).
    """
    over = np.flatnonzero((deviations > config.threshold) & (deviations <= config.upper_bound))
    if len(over) <= config.frames_per_round:
        return [int(i) for i in over]
    features = mean_descriptors(data.subset(over), potential)
    first = int(np.argmax(deviations[over]))
    return sorted(int(over[i]) for i in farthest_points(features, config.frames_per_round, first=first))


def stop_reason(rounds: Sequence[DistillRound], config: DistillConfig) -> tuple[StopReason, str]:
    """Whether the loop ends after these rounds, and a sentence that says why ("" to go on)."""
    if not rounds:
        return "", ""
    last = rounds[-1]
    if last.threshold != config.threshold and last.number < config.max_rounds:
        return "", ""  # another threshold was chosen since: measure against that
    share = f"{last.accurate_share:.1%} of {last.explored} new frames are within {config.threshold:g} eV/Å"
    if last.accurate_share >= config.accurate_share:
        return "accurate", f"{share} (accurate_share = {config.accurate_share:g})"
    if last.over == 0 and last.upper_bound in (None, config.upper_bound):
        text = f"the {last.exploded} others deviate by more than upper_bound = {config.upper_bound:g} eV/Å"
        return "nothing to add", f"{share}; {text}"
    if _unchanged(rounds, config):
        text = f"the force error has not fallen by {config.min_change:.0%} in {config.patience} rounds"
        return "unchanged", f"{text}; {share}"
    if last.number >= config.max_rounds:
        return "max_rounds", f"max_rounds = {config.max_rounds} are done; {share}"
    return "", ""


def _unchanged(rounds: Sequence[DistillRound], config: DistillConfig) -> bool:
    errors = [r.errors.force_rmse or 0.0 for r in rounds]
    if len(errors) <= config.patience:
        return False
    best_before = min(errors[: -config.patience])
    return min(errors[-config.patience :]) > best_before * (1.0 - config.min_change)
