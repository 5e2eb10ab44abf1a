"""Few frames that make most of an error: wrong labels, or structures far from all others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dpa2calc.labels.errors import Differences

UNITS = {"energy": "meV/atom", "force": "meV/Å"}
MOST_OF_IT = 0.5  # share of the squared error
FEW = 0.01  # share of the frames, at least one
LEAST_FRAMES = 20  # with fewer, one frame is not few


@dataclass(frozen=True)
class FewFrames:
    """The worst frames of one quantity, where at most 1 % of the frames make half of the squared error.

    Attributes:
        sources: file and number of each frame, and its formula, the worst first.
        errors: their RMSE, meV/atom or meV/Å.
        n_frames: with this label, of the whole set.
        share: of the squared error. rmse, without: of all frames, and of all but these.
    """

    sources: tuple[str, ...]
    errors: tuple[float, ...]
    n_frames: int
    share: float
    rmse: float
    without: float

    def describe(self, quantity: str, unit: str) -> str:
        """One line."""
        named = ", ".join(f"{s} ({e:.0f})" for s, e in zip(self.sources[:3], self.errors))
        more = f" and {len(self.sources) - 3} more" if len(self.sources) > 3 else ""
        verb = "makes" if len(self.sources) == 1 else "make"
        return (
            f"{len(self.sources)} of {self.n_frames} frames {verb} {100 * self.share:.0f} % of the squared "
            f"{quantity} error: {self.rmse:.1f} {unit}, {self.without:.1f} without; {named}{more}. "
            "Wrong labels, or far from the training set?"
        )


def few_frames(
    name: Callable[[int], str], squares: Sequence[float], counts: Sequence[int]
) -> FewFrames | None:
    """The few frames that make most of an error; None where it is spread over many.

    Args:
        name: of a frame, from its number.
        squares: sum of squared errors of each frame, (meV/atom)² or (meV/Å)². counts: numbers in each sum,
            0 where a frame has no such label.
    """
    square, count = np.asarray(squares, dtype=float), np.asarray(counts)
    n_frames, total = int((count > 0).sum()), float(square.sum())
    if n_frames < LEAST_FRAMES or total <= 0.0:
        return None
    order = np.argsort(-square)
    wanted = int(np.searchsorted(np.cumsum(square[order]), MOST_OF_IT * total)) + 1
    if wanted > max(1, FEW * n_frames):
        return None
    worst = order[:wanted]
    left, n_left = total - float(square[worst].sum()), int(count.sum() - count[worst].sum())
    return FewFrames(
        sources=tuple(name(int(i)) for i in worst),
        errors=tuple(math.sqrt(square[i] / count[i]) for i in worst),
        n_frames=n_frames,
        share=1.0 - left / total,
        rmse=math.sqrt(total / int(count.sum())),
        without=math.sqrt(max(left, 0.0) / n_left),
    )


def frames_with_most_error(
    differences: Sequence[Differences], name: Callable[[int], str]
) -> dict[str, FewFrames]:
    """Energy and force, where a few frames make most of its error; see `few_frames`."""
    parts = {"energy": [d.energy for d in differences], "force": [d.forces for d in differences]}
    found = {
        quantity: few_frames(name, [1e6 * float((e**2).sum()) for e in errors], [e.size for e in errors])
        for quantity, errors in parts.items()
    }
    return {quantity: few for quantity, few in found.items() if few is not None}
