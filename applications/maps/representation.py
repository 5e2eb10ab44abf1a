"""Maps of what a model sees: descriptors of many atoms in two dimensions, by PCA and t-SNE."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from ase.data import chemical_symbols
from scipy.spatial import cKDTree

from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.structures import positive
from dpa2calc.applications.shared.trajectory import Frames, TrajectoryLike
from dpa2calc.errors import ConfigError, DataError, MissingDependencyError
from dpa2calc.files.atomic import write_text
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.files.results import Result, provenance
from dpa2calc.files.typed import Json

from . import chemiscope
from .descriptor_points import ArrayRows, Point, collect_points, descriptor_function
from .html import map_page

Colour: TypeAlias = Literal["group", "element", "environment"]
Method: TypeAlias = Literal["pca", "tsne"]
_COMPONENTS = 50  # principal components that t-SNE and the neighbour purity see
_SHOWN = 19  # colours in a legend; rarer labels are drawn as "other"


@dataclass(frozen=True, kw_only=True)
class RepresentationMap(Result):
    """Points in the plane, one for an atom (or a structure), with labels to colour them by.

    Attributes:
        pca: first two principal components (n, 2); explained: their share of the variance (2,).
        tsne: t-SNE coordinates (n, 2), or None where it was not asked for.
        labels: "group", "element", "environment" -> names in use; codes: the same keys -> which name
            each point has (n,).
        frame, atom: index of each point's frame within its group and of its atom (n,); atom is -1 for
            structures.
        purity: the same keys -> share of points whose nearest neighbour in descriptor space has the same
            label.
        chance: the same keys -> that share for labels dealt at random.
        level: "atom" or "structure"; dimension: length of the descriptors; n_total: points before thinning.
    """

    pca: np.ndarray
    explained: np.ndarray
    tsne: np.ndarray | None
    labels: dict[str, tuple[str, ...]]
    codes: dict[str, np.ndarray]
    frame: np.ndarray
    atom: np.ndarray
    purity: dict[str, float]
    chance: dict[str, float]
    level: str
    dimension: int
    n_total: int

    def summary(self) -> str:
        lines = [
            f"map of {len(self.pca)} {self.level}s (of {self.n_total}), descriptors of {self.dimension} "
            f"numbers; two components hold {100 * self.explained.sum():.0f} % of the variance"
        ]
        for key, names in self.labels.items():
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            lines.append(
                f"  {key:12s} {len(names):3d} labels; nearest neighbour has the same in "
                f"{100 * self.purity[key]:.1f} % (chance {100 * self.chance[key]:.1f} %): {shown}"
            )
        return "\n".join(lines)

    def points(self, method: Method | None = None) -> np.ndarray:
        """Coordinates (n, 2): t-SNE where it exists, else PCA, or the one named."""
        method = method or ("pca" if self.tsne is None else "tsne")
        if method not in ("pca", "tsne"):
            raise ConfigError(f"method = {method!r} is not one of pca, tsne")
        points = self.pca if method == "pca" else self.tsne
        if points is None:
            raise ConfigError('this map has no t-SNE; make it with methods=("pca", "tsne")')
        return points

    def plot(self, ax: Axes | None = None, *, colour: Colour = "group", method: Method | None = None) -> Axes:
        """Draw the points coloured by group, element or environment; returns the axes."""
        if colour not in self.labels:
            raise ConfigError(f"colour = {colour!r} is not one of {', '.join(self.labels)}")
        points = self.points(method)
        ax = axes_for(ax, (6.4, 4.8))
        import matplotlib as mpl

        palette = [mpl.colormaps["tab20"](k) for k in (*range(0, 20, 2), *range(1, 20, 2))]
        codes, names = self.codes[colour], self.labels[colour]
        order = np.argsort(-np.bincount(codes, minlength=len(names)), kind="stable")
        rare = ~np.isin(codes, order[:_SHOWN])
        if rare.any():
            ax.plot(*points[rare].T, ".", ms=3, color="0.8", label="other", rasterized=True)
        for code, shade in zip(order[:_SHOWN], palette):
            ax.plot(*points[codes == code].T, ".", ms=3, color=shade, label=names[code], rasterized=True)
        name = "t-SNE" if points is self.tsne else "PC"
        shares = ["", ""] if points is self.tsne else [f" ({100 * share:.0f} %)" for share in self.explained]
        ax.set(xlabel=f"{name} 1{shares[0]}", ylabel=f"{name} 2{shares[1]}", xticks=[], yticks=[])
        ax.legend(
            frameon=False, fontsize=7, markerscale=3, title=colour, loc="center left",
            bbox_to_anchor=(1.0, 0.5),
        )  # fmt: skip
        return ax

    def write_html(self, path: str | os.PathLike[str], *, title: str = "Representation map") -> Path:
        """Write one self-contained page to explore the map: zoom, hover, choose projection and colours."""
        target = Path(path)
        projections = {"PCA": self.pca} if self.tsne is None else {"t-SNE": self.tsne, "PCA": self.pca}
        details = [f"frame {f}" + (f", atom {a}" if a >= 0 else "") for f, a in zip(self.frame, self.atom)]
        page = map_page(title, projections, self.labels, self.codes, details)
        write_text(target, page)
        return target

    write_chemiscope = chemiscope.write_chemiscope


@application
def representation_map(
    structures: TrajectoryLike | Mapping[str, TrajectoryLike],
    calculator: object = None,
    *,
    descriptors: np.ndarray | Sequence[np.ndarray] | None = None,
    level: Literal["atom", "structure"] = "atom",
    elements: Sequence[str] | None = None,
    methods: Sequence[Method] = ("pca", "tsne"),
    max_points: int = 3000,
    perplexity: float = 30.0,
    seed: int = 0,
    progress: bool = False,
) -> RepresentationMap:
    """Project the descriptors of many atoms onto a plane.

    Args:
        structures: one trajectory, or group name (data set, head, phase) -> trajectory.
        calculator: with a method `get_descriptors(atoms) -> (n_atoms, d)`, as DPA2Calculator has; or a
            dict with one for each group, for example one for each head. All must give the same d.
        descriptors: in place of a calculator: an array (n_atoms of all frames, d), or one array for each
            frame, in the order of the structures.
        level: a point for every atom, or for every structure: the mean over its atoms, where "element" is
            its set of elements and "environment" its formula.
        elements: only atoms of these.
        methods: "pca" is always made; "tsne" needs scikit-learn.
        max_points: above this, a random choice with an equal share for each group.
        perplexity: of t-SNE, lowered for few points.
        seed: of the choice of points and of t-SNE; the same seed gives the same map.

    Raises:
        ConfigError: neither or both of calculator and descriptors, or a calculator without descriptors.
        DataError: descriptors that do not fit the frames or are not finite; fewer than 3 points.
        MissingDependencyError: t-SNE without scikit-learn.

    Example:
        >>> picture = representation_map({"water": "water.xyz", "ice": "ice.xyz"}, calc)
        >>> picture.plot(colour="environment"); picture.write_html("map.html")
    """
    groups = structures if isinstance(structures, Mapping) else {"all": structures}
    _check_options(calculator, descriptors, methods, groups, elements)
    positive("perplexity", perplexity)
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be a whole number from 0 on")
    rng = np.random.default_rng(seed)
    arrays = None if descriptors is None else ArrayRows(descriptors)
    share = max(1, max_points // len(groups))
    parts = [
        collect_points(
            name, Frames(trajectory), arrays or descriptor_function(calculator, name), level=level,
            elements=elements, at_most=share, rng=rng, progress=progress,
        )
        for name, trajectory in groups.items()
    ]  # fmt: skip
    if arrays is not None:
        arrays.check_used_up()
    for name, (_, total) in zip(groups, parts):
        if not total and len(groups) > 1:
            raise DataError(
                f"group {name!r} has no point"
                + (
                    f": none of its atoms is {' or '.join(elements)}"
                    if elements
                    else "; its file has no atoms"
                )
                + "; leave it out"
            )
    points = [point for part, _ in parts for point in part]
    vectors = _stack(points)
    scores, explained = _principal_components(vectors)
    labels, codes = _encode(points)
    purity, chance = _purity(scores, codes)
    return RepresentationMap(
        pca=scores[:, :2],
        explained=explained[:2],
        tsne=_tsne(scores, perplexity, seed) if "tsne" in methods else None,
        labels=labels,
        codes=codes,
        frame=np.array([point.frame for point in points]),
        atom=np.array([point.atom for point in points]),
        purity=purity,
        chance=chance,
        level=level,
        dimension=vectors.shape[1],
        n_total=sum(total for _, total in parts),
        provenance=_provenance(calculator),
    )


def _provenance(calculator: object) -> dict[str, Json]:
    """That of one calculator, or of one for each group."""
    if not isinstance(calculator, Mapping):
        return provenance(calculator)
    each = {str(group): provenance(one) for group, one in calculator.items()}
    kept = {
        group: {key: told[key] for key in ("calculator", "model") if key in told}
        for group, told in each.items()
    }
    kinds = dict.fromkeys(told["calculator"] for told in kept.values())
    return provenance(calculator=None) | {"calculator": ", ".join(kinds), "calculators": kept}


def _check_options(
    calculator: object, descriptors: object, methods: Sequence[str], groups: Mapping[str, object],
    elements: Sequence[str] | None,
) -> None:  # fmt: skip
    if unknown := sorted(set(elements or ()) - set(chemical_symbols)):
        raise ConfigError(
            f"elements = {', '.join(unknown)} is not allowed; allowed: symbols such as H and Cu"
        )
    if (calculator is None) == (descriptors is None):
        raise ConfigError("representation_map takes either a calculator with get_descriptors, or descriptors")
    if not groups:
        raise ConfigError("structures is empty; give one trajectory, or group name -> trajectory")
    if "tsne" in methods and importlib.util.find_spec("sklearn") is None:
        raise MissingDependencyError(
            'a t-SNE map needs scikit-learn: pip install scikit-learn, or use methods=("pca",)'
        )


def _stack(points: list[Point]) -> np.ndarray:
    """All vectors (n, d) of all groups."""
    widths = {point.group: len(point.vector) for point in points}
    if len(set(widths.values())) > 1:
        raise DataError(f"groups have descriptors of different lengths {widths}; one map needs one model")
    if len(points) < 3:
        raise DataError(
            f"{len(points)} points are too few for a map; give 3 or more (are the elements right?)"
        )
    return np.array([point.vector for point in points])


def _encode(points: list[Point]) -> tuple[dict[str, tuple[str, ...]], dict[str, np.ndarray]]:
    """Label names and the code of every point (n,), by key; groups keep the caller's order."""
    keys = ("group", "element", "environment")
    columns: dict[str, list[str]] = {key: [getattr(point, key) for point in points] for key in keys}
    labels = {key: tuple(sorted(set(column))) for key, column in columns.items()}
    labels["group"] = tuple(dict.fromkeys(columns["group"]))
    codes = {key: np.array([labels[key].index(name) for name in column]) for key, column in columns.items()}
    return labels, codes


def _principal_components(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, k) on the first components, k = 2 to 50, and the share of variance of each (k,)."""
    centred = vectors - vectors.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    missing = max(0, 2 - len(s))  # descriptors of one number have no second component
    scores = np.pad((u * s)[:, :_COMPONENTS], ((0, 0), (0, missing)))
    # the sign of a component is free: make its largest score positive, so that a map is reproducible
    largest = scores[np.abs(scores).argmax(axis=0), np.arange(scores.shape[1])]
    scores *= np.where(largest < 0.0, -1.0, 1.0)
    share = s[:_COMPONENTS] ** 2 / max(np.sum(s**2), 1e-300)
    return scores, np.pad(share, (0, missing))


def _tsne(scores: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    spread = scores[:, 0].std()
    if spread == 0.0:
        raise DataError("all descriptors are equal, so there is nothing to map")
    lowered = min(perplexity, max(1.0, (len(scores) - 1) / 3.0))
    model = TSNE(perplexity=lowered, init=scores[:, :2] / spread * 1e-4, random_state=seed)
    return np.asarray(model.fit_transform(scores), dtype=float)


def _purity(scores: np.ndarray, codes: dict[str, np.ndarray]) -> tuple[dict[str, float], dict[str, float]]:
    """Share of points whose nearest neighbour has the same label, and what chance gives."""
    n = len(scores)
    nearest = cKDTree(scores).query(scores, k=2)[1]  # (n, 2); the point itself may come second if doubled
    other = np.where(nearest[:, 0] == np.arange(n), nearest[:, 1], nearest[:, 0])
    purity = {key: float(np.mean(code == code[other])) for key, code in codes.items()}
    counts = {key: np.bincount(code).astype(float) for key, code in codes.items()}
    return purity, {key: float(np.sum(c * (c - 1.0)) / (n * (n - 1.0))) for key, c in counts.items()}
