"""What a round of active learning measures and decides: doubts, which frames to label, when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.labels.errors import Errors
from dpa2calc.model.potential import Potential
from dpa2calc.training.data.checks.near_copies import near_copies
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.exploration.diversity import farthest_points, mean_descriptors
from dpa2calc.training.exploration.rounds import Round, error_cells, number

from .config import LearnConfig

StopReason = Literal["", "accurate", "budget", "nothing to add", "max_rounds", "waiting"]


@dataclass(frozen=True, kw_only=True)
class LearnRound(Round):
    """One round: what the model was trained on, how sure it was along its dynamics, and what was labelled.

    Attributes:
        trajectories, cut: that were run, and that exploded or were cut at the upper bound.
        explored: sampled frames, up to the cuts.
        doubts: 5, 25, 50, 75, 95 and 100 % quantiles of the frames' largest deviation of a force, eV/Å.
        scale: by which the model's own deviations were multiplied; 1 where none was measured yet.
        checked: whether it was: errors on new labels have been compared with deviations.
        added: frames that were labelled, or known, and that the next round learns from.
        spent: labels asked for until now.
        errors: of the model on the added frames, before it learned them.
        ratio: root mean square error of their forces over the model's own deviation.
    """

    doubts: tuple[float, ...]
    scale: float
    checked: bool
    spent: int
    ratio: float | None = None

    @property
    def quantiles(self) -> tuple[float, ...]:
        """The doubts."""
        return self.doubts

    def own_cells(self) -> dict[str, str]:
        """The median doubt and its scale, labels, and errors on the frames that were added."""
        return {
            "doubt": number(1e3 * self.doubts[2]),
            "scale": f"{self.scale:.2f}",
            "added": str(self.added),
            "labels": str(self.spent),
            **error_cells(self.errors, "new"),
        }


def force_doubts(
    frames: Sequence[Atoms], potential: Potential, *, device: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The model's own deviations of forces: the largest of an atom, and the mean square of components.

    Returns:
        eV/Å, (n_frames,), infinite where it is not a number; (eV/Å)^2, (n_frames,).
    """
    results = DPA2Calculator(potential, device=device).evaluate(frames, forces_std=True)
    stds = [np.asarray(r["forces_std"], dtype=np.float64) for r in results]
    largest = np.array([np.linalg.norm(std, axis=1).max() for std in stds])
    largest[~np.isfinite(largest)] = np.inf
    return largest, np.array([np.mean(std**2) for std in stds])


def error_ratio(errors: Errors, squares: np.ndarray, sizes: Sequence[int]) -> float | None:
    """Root mean square error of forces over the deviation that the model gave itself."""
    predicted = 1e3 * float(np.sqrt(np.average(squares, weights=sizes)))
    return None if errors.force_rmse is None or not predicted > 0 else errors.force_rmse / predicted


def choose_frames(
    data: Dataset,
    doubts: np.ndarray,
    potential: Potential,
    known: Dataset,
    *,
    above: float,
    most: int,
) -> list[int]:
    """Indices, ascending, of at most `most` frames to label, whose doubt is above a limit.

    Frames within 0.01 Å of a known one are left out. The least sure one comes first, then always the one
    farthest, by the model's mean descriptor of each element, from all that are known or taken.
    """
    over = np.flatnonzero(doubts > above)
    copies = near_copies(known, data.subset(over))
    over = np.array([i for place, i in enumerate(over) if place not in copies], dtype=int)
    if not len(over) or most < 1:
        return []
    together = Dataset((*known.frames, *data.subset(over).frames), data.name)
    features = mean_descriptors(together, potential)
    old, new = features[: len(known)], features[len(known) :]
    picked = farthest_points(new, min(most, len(over)), first=int(np.argmax(doubts[over])), known=old)
    return sorted(int(over[i]) for i in picked)


def stop_reason(rounds: Sequence[LearnRound], config: LearnConfig) -> tuple[StopReason, str]:
    """Whether the loop ends after these rounds, and a sentence that says why ("" to go on)."""
    if not rounds:
        return "", ""
    last = rounds[-1]
    frames = f"{last.accurate_share:.1%} of {last.explored} new frames"
    share = f"the doubt of {frames} is within {last.threshold:g} eV/Å"
    if is_sure(last, config) and last.threshold <= config.threshold:
        return "accurate", f"{share} (accurate_share = {config.accurate_share:g})"
    if last.spent >= config.budget:
        return "budget", f"all {config.budget} labels of the budget are spent; {share}"
    if last.number >= config.max_rounds:
        return "max_rounds", f"max_rounds = {config.max_rounds} are done; {share}"
    if not last.added and last.threshold <= config.threshold:
        return "nothing to add", f"{share}; the others are known already, or could not be labelled"
    return "", ""


def is_sure(last: LearnRound, config: LearnConfig) -> bool:
    """Whether fresh trajectories hold no more surprises, by deviations that were compared with errors."""
    return last.checked and last.accurate_share >= config.accurate_share
