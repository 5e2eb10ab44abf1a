"""Partial radial distribution functions g_AB(r) and running coordination numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from ase import Atoms

from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.structures import image_distance
from dpa2calc.applications.shared.trajectory import Frames, TrajectoryLike, with_progress
from dpa2calc.dynamics.averages import BlockAverage
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.files.results import Result, ShownBySummary, error_text, library_versions
from dpa2calc.structures.search import face_distances

from .curves import blocks_line, draw_curve, draw_references, first_maximum, first_minimum, vertex
from .pair_counts import (
    ElementsLike,
    check_bins,
    indices_of,
    pair_histogram,
    parse_elements,
    volume_of,
)

Normalisation: TypeAlias = Literal["auto", "N-1", "N"]
Arrays: TypeAlias = tuple[npt.ArrayLike, npt.ArrayLike]


@dataclass(frozen=True, kw_only=True)
class RadialDistribution(Result):
    """g_AB(r) with block-averaged errors.

    Attributes:
        pair: elements A and B.
        r: bin centres (n_bins,) in Å; the bins have equal width and begin at 0.
        g, g_error: partial radial distribution function and its error (`dynamics.averages`) (n_bins,).
        coordination, coordination_error: number of B within the upper edge of each bin of an A,
            (n_bins,); it is a count and does not depend on the normalisation of g.
        density: mean number density of B in 1/Å³.
        n_frames, n_blocks: frames read and blocks behind the error bars.
        normalisation: "N-1" or "N" (always for unlike pairs), see `radial_distributions`.
    """

    pair: tuple[str, str]
    r: np.ndarray
    g: np.ndarray
    g_error: np.ndarray
    coordination: np.ndarray
    coordination_error: np.ndarray
    density: float
    n_frames: int
    n_blocks: int
    normalisation: str

    @property
    def name(self) -> str:
        """The pair as text, e.g. "O-H"."""
        return "-".join(self.pair)

    @property
    def bin_width(self) -> float:
        """Width of a bin in Å."""
        return float(2.0 * self.r[0])

    @property
    def upper_edges(self) -> np.ndarray:
        """Upper bin edges (n_bins,) in Å, where `coordination` is counted."""
        return self.r + 0.5 * self.bin_width

    def first_peak(self) -> tuple[float, float]:
        """Position (Å) and height of the first maximum, from a parabola through its top three bins.

        Raises:
            StructureError: no pair lies within the range.
        """
        if not self.g.any():
            raise StructureError(
                f"no {self.name} pair lies within {self.upper_edges[-1]:.2f} Å, so g has no peak; raise r_max"
            )
        return vertex(self.r, self.g, first_maximum(self.r, self.g))

    def first_minimum(self) -> float:
        """Position (Å) of the first minimum after the first peak, on g smoothed over 0.3 Å.

        Raises:
            StructureError: g(r) has no peak, or no minimum after it, within the range.
        """
        minimum = first_minimum(self.r, self.g)
        if minimum is None:
            raise StructureError(
                f"g_{self.name}(r) has no minimum between its first peak at {self.first_peak()[0]:.2f} Å "
                f"and the end of the range at {self.upper_edges[-1]:.2f} Å; raise r_max, or name the "
                "cutoff yourself"
            )
        return minimum

    def coordination_at(self, radius: float) -> tuple[float, float]:
        """Number of B within `radius` (Å) of an A, and its error, interpolated between bin edges."""
        edges = self.upper_edges
        if not 0.0 <= radius <= edges[-1] + 1e-9:
            raise ConfigError(f"radius = {radius} Å is outside the range 0 to {edges[-1]:.3f} Å of this g(r)")
        columns = (self.coordination, self.coordination_error)
        value, error = (float(np.interp(radius, [0.0, *edges], [0.0, *column])) for column in columns)
        return value, error

    def compare(self, reference: RadialDistribution | Arrays) -> RadialComparison:
        """How far this curve is from a reference: first peak and mean absolute deviation of g.

        Args:
            reference: another RadialDistribution, or (r in Å, g) arrays; it is interpolated to the
                bins of this one, over the range that both cover.
        """
        r, g = _curve(reference)
        inside = (self.r >= r[0] - 1e-9) & (self.r <= r[-1] + 1e-9)
        if not inside.any():
            raise ConfigError(f"the reference covers {r[0]} to {r[-1]} Å, none of this g(r)'s range")
        other_position, other_height = vertex(r, g, first_maximum(r, g))
        position, height = self.first_peak()
        return RadialComparison(
            peak_shift=position - other_position,
            peak_height_ratio=height / other_height,
            mean_absolute_deviation=float(np.abs(self.g - np.interp(self.r, r, g))[inside].mean()),
        )

    def summary(self) -> str:
        lines = [
            f"g_{self.name}(r): {blocks_line(self.n_frames, self.n_blocks)}",
            f"  bins           {self.bin_width:.3f} Å up to {self.upper_edges[-1]:.2f} Å, "
            f"normalised by {self.normalisation}",
        ]
        try:
            position, height = self.first_peak()
        except StructureError as none:
            return "\n".join([*lines, f"  first peak     {none}"])
        at_peak = float(np.interp(position, self.r, self.g_error))
        lines.append(f"  first peak     {position:.3f} Å, height {height:.3f} ± {error_text(at_peak, '.3f')}")
        try:
            minimum = self.first_minimum()
        except StructureError:
            lines.append("  first minimum  not within the range")
        else:
            number, error = self.coordination_at(minimum)
            lines += [
                f"  first minimum  {minimum:.2f} Å",
                f"  coordination   {number:.3f} ± {error_text(error, '.3f')} {self.pair[1]} within it of a "
                f"{self.pair[0]}",
            ]
        return "\n".join(lines)

    def plot(
        self, ax: Axes | None = None, *, label: str | None = None,
        reference: RadialDistribution | Arrays | Mapping[str, RadialDistribution | Arrays] | None = None,
    ) -> Axes:  # fmt: skip
        """Draw g(r) with its error band; returns the axes.

        Args:
            ax: matplotlib axes; new ones if None.
            reference: drawn beside it as a dashed black line: a RadialDistribution, (r, g) arrays, or a
                dict of name -> one of these.
            label: name of this curve in the legend; "g_AB(r)" if None.
        """
        ax = axes_for(ax, (5.0, 3.6))
        draw_references(ax, reference, _curve)
        draw_curve(ax, self.r, self.g, self.g_error, label or f"$g_\\mathrm{{{''.join(self.pair)}}}(r)$")
        ax.axhline(1.0, color="0.8", lw=0.8, zorder=0)
        ax.set(xlabel="r (Å)", ylabel="g(r)", xlim=(0.0, self.upper_edges[-1]), ylim=(0.0, None))
        ax.legend(frameon=False, loc="upper right")
        return ax


@dataclass(frozen=True, kw_only=True)
class RadialComparison(ShownBySummary):
    """Difference of two g(r): peak_shift in Å, peak_height_ratio, mean_absolute_deviation of g."""

    peak_shift: float
    peak_height_ratio: float
    mean_absolute_deviation: float

    def summary(self) -> str:
        """One line."""
        return (
            f"first peak shifted by {self.peak_shift:+.3f} Å, height x {self.peak_height_ratio:.3f}, "
            f"mean |Δg| = {self.mean_absolute_deviation:.3f}"
        )


@application
def radial_distribution(
    trajectory: TrajectoryLike,
    pair: ElementsLike = "O-O",
    *,
    r_max: float | None = None,
    bin_width: float = 0.05,
    n_blocks: int = 10,
    normalisation: Normalisation = "auto",
    progress: bool = False,
) -> RadialDistribution:
    """Partial radial distribution function of one pair of elements; see `radial_distributions`.

    Example:
        >>> rdf = radial_distribution("md.traj", "O-O", r_max=6.0)
        >>> print(rdf.summary()); rdf.plot().figure.savefig("rdf.png")
    """
    (curve,) = radial_distributions(
        trajectory, [pair], r_max=r_max, bin_width=bin_width, n_blocks=n_blocks,
        normalisation=normalisation, progress=progress,
    ).values()  # fmt: skip
    return curve


@application
def radial_distributions(
    trajectory: TrajectoryLike,
    pairs: Sequence[ElementsLike],
    *,
    r_max: float | None = None,
    bin_width: float = 0.05,
    n_blocks: int = 10,
    normalisation: Normalisation = "auto",
    progress: bool = False,
) -> dict[str, RadialDistribution]:
    """Several partial g(r) in one pass over a trajectory.

        g_AB(r) = < V n_AB(r) / (N_A N_B' 4π/3 (r₊³ - r₋³)) >

    with n_AB the number of ordered A-B pairs in the shell r₋ to r₊, averaged over frames, each with its
    own volume and atom numbers (NPT is right). All periodic images are counted, an atom's own images
    among them, so any range is exact in any cell, triclinic or small.

    N_B' is N_B for unlike pairs. For like pairs, "N-1" makes an ideal gas of N atoms give exactly 1,
    "N" makes a cell and its supercells give the same g; "auto" takes "N-1" unless own images
    lie within the range (then only "N" is meaningful).

    Args:
        trajectory: file, list or iterator of Atoms, or `Frames` (which also selects frames).
        pairs: pairs as "O-H" or ("O", "H"); the coordination number is of B around A.
        r_max: range in Å; half the smallest cell height of the first frame if None.
        bin_width: in Å; r_max is rounded up to whole bins.
        n_blocks: consecutive blocks behind the errors; they should be longer than the
            correlation time.
        progress: show a bar on stderr.

    Returns:
        pair name such as "O-H" -> RadialDistribution.

    Raises:
        ConfigError: a range, width or pair that cannot be.
        ElementError: a frame has no atom of an element asked for.
        StructureError: a frame is not periodic in three directions, so it has no density.
        DataError: see Frames.
    """
    frames = Frames(trajectory)
    chosen = [parse_elements(pair, 2, "pair") for pair in pairs]
    if not bin_width > 0 or (r_max is not None and r_max < 3 * bin_width * (1 - 1e-9)):
        raise ConfigError(
            f"bin_width = {bin_width} Å and r_max = {r_max} Å: both must be > 0, r_max three bins at least"
        )
    check_bins(r_max or 0.0, bin_width)
    averages = [BlockAverage(n_blocks) for _ in chosen]
    densities = np.zeros(len(chosen))
    n_bins, rule = 0, str(normalisation)
    for number, atoms in enumerate(with_progress(frames, "g(r)", progress)):
        where = f"{frames.name}, frame {number}"
        volume = volume_of(atoms, where)
        if number == 0:
            n_bins = _number_of_bins(atoms, r_max, bin_width)
            if normalisation == "auto":
                rule = "N" if image_distance(atoms.cell.array) < n_bins * bin_width else "N-1"
        for k, pair in enumerate(chosen):
            g, running, n_second = _one_frame(atoms, pair, volume, bin_width, n_bins, rule, where)
            averages[k].add(np.stack([g, running]))
            densities[k] += n_second / volume
    return {
        "-".join(pair): _result(pair, bin_width, average, density, rule, frames.name)
        for pair, average, density in zip(chosen, averages, densities)
    }


def _number_of_bins(atoms: Atoms, r_max: float | None, bin_width: float) -> int:
    if r_max is not None:
        return int(np.ceil(r_max / bin_width - 1e-9))
    half = 0.5 * float(face_distances(atoms.cell.array).min())
    check_bins(half, bin_width)
    return max(1, int(half / bin_width + 1e-9))


def _one_frame(
    atoms: Atoms, pair: tuple[str, ...], volume: float, bin_width: float, n_bins: int, rule: str, where: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """g (n_bins,), running coordination number (n_bins,) and the number of atoms of the second element."""
    first, second = (indices_of(atoms, element, where) for element in pair)
    partners = len(second) - 1 if pair[0] == pair[1] and rule == "N-1" else len(second)
    if partners == 0:
        raise StructureError(
            f"{where} has only one {pair[0]} atom, so g of {pair[0]}-{pair[0]} is 0/0 under the "
            'normalisation "N-1"; use normalisation="N" with a range beyond the cell, or a supercell'
        )
    counts = pair_histogram(atoms, first, second, bin_width=bin_width, n_bins=n_bins)
    shells = 4.0 / 3.0 * np.pi * np.diff((bin_width * np.arange(n_bins + 1)) ** 3)  # (n_bins,)
    return counts * volume / (len(first) * partners * shells), np.cumsum(counts) / len(first), len(second)


def _result(
    pair: tuple[str, ...], bin_width: float, average: BlockAverage, density: float, rule: str, source: str
) -> RadialDistribution:
    (g, coordination), (g_error, coordination_error) = average.mean(), average.error()
    n_frames = average.n_frames
    return RadialDistribution(
        pair=(pair[0], pair[1]),
        r=bin_width * (np.arange(len(g)) + 0.5),
        g=g,
        g_error=g_error,
        coordination=coordination,
        coordination_error=coordination_error,
        density=float(density / n_frames),
        n_frames=n_frames,
        n_blocks=min(average.n_blocks, n_frames),
        normalisation=rule if pair[0] == pair[1] else "N",
        provenance={"source": source, **library_versions("vesin")},
    )


def _curve(curve: RadialDistribution | Arrays) -> tuple[np.ndarray, np.ndarray]:
    """(r, g) of a RadialDistribution or of a pair of arrays."""
    if isinstance(curve, RadialDistribution):
        return curve.r, curve.g
    r, g = (np.asarray(values, dtype=float) for values in curve)
    if r.shape != g.shape or r.ndim != 1 or len(r) < 3:
        raise ConfigError(
            f"a reference curve is two arrays (r, g) of equal length >= 3, not {r.shape} and {g.shape}"
        )
    return r, g
