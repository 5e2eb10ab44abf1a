"""Angular distribution functions: the angle A-B-C at the central element B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.trajectory import Frames, TrajectoryLike, with_progress
from dpa2calc.dynamics.averages import BlockAverage, block_error
from dpa2calc.errors import ConfigError, DataError, StructureError
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.files.results import Result, error_text, library_versions

from .curves import blocks_line, draw_curve, draw_references
from .pair_counts import ElementsLike, check_bins, indices_of, neighbour_vectors, parse_elements
from .rdf import radial_distributions

_CHUNK = 2_000_000  # angles held in memory at a time


@dataclass(frozen=True, kw_only=True)
class AngularDistribution(Result):
    """Probability density of the angle A-B-C with block-averaged errors.

    Attributes:
        triplet: elements A, B, C; B is at the vertex.
        angle: bin centres (n_bins,) in degrees, 0, w, 2w, ..., 180; the first and the last bin are half as
            wide, so that the exact angles of crystals (60, 90, 180, ...) lie in the middle of a bin.
        density, density_error: probability per degree and its error (`dynamics.averages`) (n_bins,);
            sum(density * widths) = 1.
        cutoffs: largest distances A-B and B-C in Å.
        angles_per_centre: mean number of angles at a B.
        n_frames, n_blocks: frames read and blocks behind the error bars.
    """

    triplet: tuple[str, str, str]
    angle: np.ndarray
    density: np.ndarray
    density_error: np.ndarray
    cutoffs: tuple[float, float]
    angles_per_centre: float
    n_frames: int
    n_blocks: int

    @property
    def name(self) -> str:
        """The triplet as text, e.g. "H-O-H"."""
        return "-".join(self.triplet)

    @property
    def edges(self) -> np.ndarray:
        """Bin edges (n_bins + 1,) in degrees."""
        return _edges(len(self.angle))

    @property
    def widths(self) -> np.ndarray:
        """Bin widths (n_bins,) in degrees."""
        return np.diff(self.edges)

    @property
    def relative_to_random(self) -> np.ndarray:
        """Density over that of random directions, which is proportional to sin(angle); (n_bins,)."""
        random = -0.5 * np.diff(np.cos(np.radians(self.edges)))  # probability of each bin
        return self.density * self.widths / random

    @property
    def mean(self) -> float:
        """Mean angle in degrees."""
        return float(np.sum(self.angle * self.density * self.widths))

    @property
    def standard_deviation(self) -> float:
        """Standard deviation of the angle in degrees."""
        return float(np.sqrt(np.sum((self.angle - self.mean) ** 2 * self.density * self.widths)))

    def compare(self, reference: AngularDistribution) -> float:
        """Half the integral of |difference| of two densities: 0 for equal, 1 for disjoint ones."""
        if len(reference.angle) != len(self.angle):
            raise ConfigError(
                f"bin widths differ: {len(self.angle)} and {len(reference.angle)} bins; use the same"
            )
        return float(0.5 * np.sum(np.abs(self.density - reference.density) * self.widths))

    def summary(self) -> str:
        top = int(np.argmax(self.density))
        at_cutoffs = " and ".join(f"{cutoff:.2f}" for cutoff in dict.fromkeys(self.cutoffs))
        return (
            f"angle {self.name}: {blocks_line(self.n_frames, self.n_blocks)}\n"
            f"  neighbours within  {at_cutoffs} Å\n"
            f"  angles             {self.angles_per_centre:.3f} per {self.triplet[1]}\n"
            f"  highest density    {self.density[top]:.5f} ± {error_text(self.density_error[top], '.5f')} "
            f"per degree at {self.angle[top]:.1f}°\n"
            f"  mean, deviation    {self.mean:.2f}°, {self.standard_deviation:.2f}°"
        )

    def plot(
        self, ax: Axes | None = None, *, label: str | None = None,
        reference: AngularDistribution | Mapping[str, AngularDistribution] | None = None,
    ) -> Axes:  # fmt: skip
        """Draw the density with its error band; returns the axes.

        Args:
            ax: matplotlib axes; new ones if None.
            reference: an AngularDistribution drawn beside it in black, or a dict of name -> one.
            label: name of this curve; "A-B-C" if None.
        """
        ax = axes_for(ax, (5.0, 3.6))
        draw_references(ax, reference, lambda curve: (curve.angle, curve.density))
        draw_curve(ax, self.angle, self.density, self.density_error, label or self.name)
        ax.set(xlabel=f"angle {self.name} (°)", ylabel="probability density (1/°)", xlim=(0.0, 180.0))
        ax.set(xticks=range(0, 181, 30), ylim=(0.0, None))
        ax.legend(frameon=False)
        return ax


@application
def angular_distribution(
    trajectory: TrajectoryLike,
    triplet: ElementsLike = "O-O-O",
    *,
    cutoff: float | tuple[float, float] | None = None,
    bin_width: float = 1.0,
    n_blocks: int = 10,
    progress: bool = False,
) -> AngularDistribution:
    """Distribution of the angle A-B-C over all neighbours A and C of each B, periodic images included.

    Every unordered pair of neighbours counts once. Exactly collinear neighbours give 180°.

    Args:
        trajectory: file, list or iterator of Atoms, or `Frames`.
        triplet: "A-B-C" or ("A", "B", "C"), B at the vertex.
        cutoff: largest distance in Å to count as a neighbour: one number, or (A-B, B-C). None: the
            first minima of g_BA(r) and g_BC(r), found in an earlier pass over the same frames.
        bin_width: in degrees; must divide 180.
        n_blocks: consecutive blocks behind the errors.
        progress: show a bar on stderr.

    Raises:
        ConfigError, ElementError, DataError: wrong arguments, elements or frames.
        StructureError: no angle within the cutoffs, or no minimum of g(r) to take them from.

    Example:
        >>> adf = angular_distribution("md.traj", "O-O-O")
        >>> print(adf.summary()); adf.plot().figure.savefig("adf.png")
    """
    frames = Frames(trajectory)
    a, b, c = parse_elements(triplet, 3, "triplet")
    n_bins = 0
    if bin_width > 0:
        check_bins(180.0, bin_width)
        n_bins = 1 + round(180.0 / bin_width)
    if n_bins < 3 or abs((n_bins - 1) * bin_width - 180.0) > 1e-6:
        raise ConfigError(f"bin_width = {bin_width}° does not divide 180°; take for example 1, 2 or 5")
    cutoffs = _cutoffs(frames, (a, b, c), cutoff, progress)
    average = BlockAverage(n_blocks)
    for number, atoms in enumerate(with_progress(frames, "angles", progress)):
        average.add(_one_frame(atoms, (a, b, c), cutoffs, n_bins, f"{frames.name}, frame {number}"))
    per_centre = average.mean()
    if per_centre.sum() == 0.0:
        raise StructureError(
            f"{frames.name} has no {a}-{b}-{c} angle within {cutoffs[0]:.2f} and {cutoffs[1]:.2f} Å; "
            "raise the cutoff"
        )
    widths = np.diff(_edges(n_bins))
    blocks, error = average.blocks(), np.full(n_bins, np.nan)
    totals = blocks.sum(axis=1, keepdims=True)
    if len(blocks) > 1 and (totals > 0.0).all():
        error = block_error(blocks / totals / widths)
    return AngularDistribution(
        triplet=(a, b, c),
        angle=np.linspace(0.0, 180.0, n_bins),
        density=per_centre / per_centre.sum() / widths,
        density_error=error,
        cutoffs=cutoffs,
        angles_per_centre=float(per_centre.sum()),
        n_frames=average.n_frames,
        n_blocks=len(blocks),
        provenance={"source": frames.name, **library_versions("vesin")},
    )


def _edges(n_bins: int) -> np.ndarray:
    width = 180.0 / (n_bins - 1)
    return np.clip(width * (np.arange(n_bins + 1) - 0.5), 0.0, 180.0)


def _cutoffs(
    frames: Frames, triplet: tuple[str, str, str], cutoff: float | tuple[float, float] | None, progress: bool
) -> tuple[float, float]:
    a, b, c = triplet
    if cutoff is None:
        if not frames.repeatable:
            raise DataError(
                f"{frames.name} is an iterator, which can be read only once, but finding the cutoff needs "
                "an earlier pass; give cutoff, or pass a file or a list of Atoms"
            )
        try:
            curves = radial_distributions(frames, [(b, a), (b, c)], r_max=8.0, progress=progress)
        except StructureError as error:
            raise StructureError(f"{error}; angles need none where the cutoff is given") from error
        return curves[f"{b}-{a}"].first_minimum(), curves[f"{b}-{c}"].first_minimum()
    first, second = cutoff if isinstance(cutoff, tuple) else (cutoff, cutoff)
    if not (first > 0.0 and second > 0.0):
        raise ConfigError(f"cutoff = {cutoff} Å: it must be > 0")
    if a == c and first != second:
        raise ConfigError(f"cutoff = {cutoff} Å differs for A and C, but both are {a}; give one number")
    return float(first), float(second)


def _one_frame(
    atoms: Atoms, triplet: tuple[str, str, str], cutoffs: tuple[float, float], n_bins: int, where: str
) -> np.ndarray:
    """Numbers (n_bins,) of angles per central atom."""
    a, b, c = (indices_of(atoms, element, where) for element in triplet)
    first = _directions(*neighbour_vectors(atoms, b, a, cutoffs[0]), len(b))
    alike = triplet[0] == triplet[2]
    second = first if alike else _directions(*neighbour_vectors(atoms, b, c, cutoffs[1]), len(b))
    counts = np.zeros(n_bins)
    step = max(1, _CHUNK // max(1, first.shape[1] * second.shape[1]))
    for start in range(0, len(b), step):
        left, right = first[start : start + step], second[start : start + step]
        cosine = np.einsum("nix,njx->nij", left, right)  # (n, k_a, k_c), NaN where padded
        valid = np.isfinite(cosine)
        if alike:
            valid &= np.triu(np.ones(cosine.shape[1:], dtype=bool), k=1)
        # unit vectors that are exactly opposite can give -1 - 1e-16, whose arc cosine is NaN
        angles = np.degrees(np.arccos(np.clip(cosine[valid], -1.0, 1.0)))
        counts += np.bincount(np.rint(angles / 180.0 * (n_bins - 1)).astype(np.int64), minlength=n_bins)
    return counts / len(b)


def _directions(owner: np.ndarray, vectors: np.ndarray, n_centres: int) -> np.ndarray:
    """Unit vectors (n_centres, k_max, 3), padded with NaN."""
    counts = np.bincount(owner, minlength=n_centres)
    slot = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    padded = np.full((n_centres, max(1, int(counts.max(initial=0))), 3), np.nan)
    padded[owner, slot] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return padded
