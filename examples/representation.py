"""Figure 5 of the paper: what the descriptor of the multi-head model sees, as maps by PCA and t-SNE.

    python examples/representation.py DATA_FOLDER                     # all sets that the model's heads know
    python examples/representation.py DATA_FOLDER --quick

DATA_FOLDER holds the training sets (docs/data.md), each with test.extxyz.xz. Descriptors of atoms from
every set are mapped together, coloured by group of the periodic table (Figure 5a) and by data set; then
single elements by what they are bonded to or where they come from: S beside P or Ge in SSE-PBE (Figure 5e),
H and O in water, oxides and molecules. The descriptor includes the embedding of the element itself.

Writes representation.json and .png, and, to explore the map of all: representation.html (open it in a
browser) and representation.chemiscope.json.gz (open it at chemiscope.org).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from paper.record import save_record
from paper.science import Verdict, model_name, options, prepare, read_set, summarise
from scipy.spatial import cKDTree
from tqdm import tqdm

from dpa2calc import DPA2Calculator, load_model
from dpa2calc.applications import RepresentationMap, representation_map

# What the names of a family's sets begin with.
FAMILIES: dict[str, tuple[str, ...]] = {
    "water": ("H2O-", "Electrolyte-"),
    "interfaces with water": ("Interface-",),
    "oxides": ("FerroEle", "HfO2-", "Oxide-", "Cathode-", "Zeolite-", "SemiCond-Ga2O3"),
    "molecules": ("Mol-",),
    "hybrid perovskite": ("HalidePerovskite-",),
    "inorganic crystals": ("Inorganic-",),
    "catalysis": ("Catalysis-",),
    "2-D crystals and carbon": ("2D-", "Carbon-"),
    "metals": ("Alloy-", "AgAu-", "Cluster-", "Cu-", "Fe-", "Li-", "Mo-", "Ni-", "Ta-", "WBe-"),
}
MOST_NAMES = 12  # of data sets in a legend
QUICK_SETS = ("H2O-PBE0TS", "SSE-PBE", "Mol-rMD17-aspirin", "Cu-mlearn", "Oxide-Al2O3")


def column(number: int) -> str:
    """Column of the periodic table that an atomic number stands in; metals of the middle together."""
    closed = 0
    for shell in (2, 8, 8, 18, 18, 32, 32):
        if number <= closed + shell:
            k, left = number - closed, closed + shell - number
            if number == 2 or left == 0:
                return "18"
            if k <= 2:
                return str(k)
            if left < 6:
                return str(18 - left)
            return "f block" if shell == 32 and k <= 16 else "3-12"
        closed += shell
    raise ValueError(f"no element {number}")


def collect(args: argparse.Namespace) -> tuple[dict[str, list[Atoms]], dict[str, list[np.ndarray]]]:
    """Frames of every set and the descriptors of their atoms, (n_atoms, d) for each frame."""
    potential = load_model(args.model)
    heads = {name: head.name for head in potential.config.heads for name in head.info.get("test_errors", {})}
    wanted = QUICK_SETS if args.quick else (args.sets or tuple(heads))
    rng = np.random.default_rng(args.seed)
    frames: dict[str, list[Atoms]] = {}
    descriptors: dict[str, list[np.ndarray]] = {}
    for name in tqdm(wanted, desc="descriptors", unit="set"):
        if not (args.data / name / "test.extxyz.xz").exists():
            print(f"{name}: no frames in {args.data}, left out")
            continue
        calc = DPA2Calculator(potential, args.head or heads[name], device=args.device, dtype=args.dtype)
        known = read_set(args.data / name, ("test",))
        chosen = rng.permutation(len(known))[: 2 if args.quick else args.frames]
        frames[name] = [known[k] for k in sorted(chosen)]
        for atoms in frames[name]:
            atoms.calc = None
        descriptors[name] = [np.asarray(calc.get_descriptors(atoms)) for atoms in frames[name]]
    return frames, descriptors


def make_map(
    frames: dict[str, list[Atoms]],
    descriptors: dict[str, list[np.ndarray]],
    args: argparse.Namespace,
    elements: list[str] | None = None,
    points: int = 3000,
) -> RepresentationMap | None:
    """A map of the sets that hold the elements; None where fewer than 30 atoms are left."""
    chosen = [
        name
        for name, group in frames.items()
        if elements is None or any(set(elements) & set(atoms.get_chemical_symbols()) for atoms in group)
    ]
    count = sum(
        sum(elements is None or symbol in elements for symbol in atoms.get_chemical_symbols())
        for name in chosen
        for atoms in frames[name]
    )
    if count < 30:
        return None
    rows = [array for name in chosen for array in descriptors[name]]
    return representation_map(
        {name: frames[name] for name in chosen},
        descriptors=rows,
        elements=elements,
        max_points=400 if args.quick else points,
        seed=args.seed,
    )


def names_of(picture: RepresentationMap, key: str) -> np.ndarray:
    """Label of each point, (n,)."""
    return np.array(picture.labels[key])[picture.codes[key]]


def bonded_to(environment: str) -> str:
    """P or Ge among the neighbours of sulphur, from a name such as "S:Li4 P1"."""
    neighbours = environment.partition(":")[2]
    return next((f"S bonded to {e}" for e in ("P", "Ge") if e in neighbours), "other S")


def family_of(name: str) -> str:
    """What kind of matter a set is."""
    return next((family for family, starts in FAMILIES.items() if name.startswith(starts)), "other")


def purity(picture: RepresentationMap, labels: np.ndarray, vectors: np.ndarray) -> tuple[float, float]:
    """Share of points whose nearest neighbour has the same label, and the share by chance."""
    nearest = cKDTree(vectors).query(vectors, k=2)[1]
    other = np.where(nearest[:, 0] == np.arange(len(vectors)), nearest[:, 1], nearest[:, 0])
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(np.mean(labels == labels[other])), float(np.sum(shares**2))


def vectors_of(picture: RepresentationMap, descriptors: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Descriptors (n, d) of the points of a map."""
    sets = names_of(picture, "group")
    return np.array([descriptors[s][f][a] for s, f, a in zip(sets, picture.frame, picture.atom)])


def scatter(ax: Any, picture: RepresentationMap, labels: np.ndarray, title: str) -> None:
    """Points of the t-SNE map by label, the commonest first."""
    import matplotlib as mpl

    names, counts = np.unique(labels, return_counts=True)
    palette = [mpl.colormaps["tab20"](k) for k in (*range(0, 20, 2), *range(1, 20, 2))]
    for number, name in enumerate(names[np.argsort(-counts)]):
        again, index = divmod(number, len(palette))  # the same colours once more, with another marker
        ax.plot(
            *picture.points()[labels == name].T,
            marker=".+x"[again % 3],
            linestyle="",
            ms=2.5,
            color=palette[index],
            label=name,
            rasterized=True,
        )
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=10, loc="left")
    ax.legend(frameon=False, fontsize=6, markerscale=3, loc="center left", bbox_to_anchor=(1.0, 0.5))


def main() -> None:
    """Collect, map, draw, judge."""
    parser = options(__doc__, model="default", output="runs/representation")
    parser.add_argument("data", type=Path, help="folder of the training sets")
    parser.add_argument("--sets", nargs="+", help="only these")
    parser.add_argument("--frames", type=int, default=10, help="of each set (default 10)")
    args = parser.parse_args()
    started = prepare(args)
    frames, descriptors = collect(args)
    whole = make_map(frames, descriptors, args)
    if whole is None:
        raise SystemExit("fewer than 30 atoms: name sets that hold more")
    print(whole.summary())
    columns = np.array([column(n) for n in _numbers(whole, frames)])
    origin, kind = names_of(whole, "group"), "data set"
    if len(frames) > MOST_NAMES:
        origin, kind = np.array([family_of(name) for name in origin]), "family of data sets"
    panels = [(whole, columns, "(a) group of the periodic table"), (whole, origin, f"(b) {kind}")]
    share, chance = purity(whole, columns, vectors_of(whole, descriptors))
    rows: dict[str, Any] = {"periodic group": {"purity": share, "chance": chance}}
    claim = "nearest neighbour is the same element"
    same = whole.purity["element"]
    verdicts = [Verdict(f"{claim} (over 95 %)", f"{100 * same:.1f} %", bool(same > 0.95))]
    for element, letter, labelling in (("S", "c", "bond"), ("H", "d", "family"), ("O", "e", "family")):
        mine = {"SSE-PBE": frames["SSE-PBE"]} if element == "S" and "SSE-PBE" in frames else frames
        picture = make_map(mine, descriptors, args, [element], points=1500)
        if picture is None:
            continue
        if labelling == "bond":
            labels = np.array([bonded_to(name) for name in names_of(picture, "environment")])
        else:
            labels = np.array([family_of(name) for name in names_of(picture, "group")])
        share, chance = purity(picture, labels, vectors_of(picture, descriptors))
        rows[element] = {"purity": share, "chance": chance, "labels": sorted(set(labels.tolist()))}
        text = f"{100 * share:.1f} % (chance {100 * chance:.0f} %)"
        claim = f"{element}: nearest neighbour has the same {labelling} (over 90 %)"
        verdicts.append(Verdict(claim, text, bool(share > 0.9) if len(set(labels.tolist())) > 1 else None))
        panels.append((picture, labels, f"({letter}) {element}, by {labelling}"))
    draw(panels, model_name(args), args.output / "representation.png")
    whole.save(args.output / "representation.npz")
    whole.write_html(args.output / "representation.html", title=f"{model_name(args)}: all sets")
    whole.write_chemiscope(args.output / "representation.chemiscope.json.gz", frames, title=model_name(args))
    data = {
        "points": len(whole.pca),
        "sets": list(frames),
        "explained": whole.explained.tolist(),
        "purity": whole.purity,
        "chance": whole.chance,
        "maps": rows,
    }
    save_record(args.output / "representation.json", summarise(args, data, verdicts), started)
    print(f"figure {args.output / 'representation.png'}")


def _numbers(picture: RepresentationMap, frames: dict[str, list[Atoms]]) -> list[int]:
    """Atomic number of each point."""
    sets = names_of(picture, "group")
    return [int(frames[s][f].numbers[a]) for s, f, a in zip(sets, picture.frame, picture.atom)]


def draw(panels: list[Any], title: str, path: Path) -> None:
    """One panel for each map, three in a row."""
    import matplotlib.pyplot as plt

    n_rows = -(-len(panels) // 3)
    figure, axes = plt.subplots(n_rows, 3, figsize=(15, 4.2 * n_rows), layout="constrained", squeeze=False)
    for ax, (picture, labels, text) in zip(axes.flat, panels):
        scatter(ax, picture, labels, text)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    figure.suptitle(f"{title}: t-SNE of descriptors")
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
