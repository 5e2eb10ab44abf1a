"""What rounded fitting nets cost and save: size of the file and of what a wheel packs, energies, forces.

    python benchmarks/rounding.py runs/default-67/last.safetensors --data data
    python benchmarks/rounding.py student.safetensors --data data --sets SSE-PBE

Changes are against the unrounded model, on a few test frames of each set, beside the model's own errors.
Energies after a fit of one energy for each element, as `examples/ship_model.py` makes it: the rest is what
the fit cannot take away. The file is without uncertainties.
"""

import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from common import parser_for

from dpa2calc import load_model
from dpa2calc.labels.errors import Prediction
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import save_checkpoint
from dpa2calc.store.rounding import BITS, round_nets
from dpa2calc.training import Dataset, load_registered, registered_sets
from dpa2calc.training.data.dataset import spread_frames
from dpa2calc.training.data.frame import Frame
from dpa2calc.training.fit.predict import predict_potential

SETS = (
    "Si-mlearn",
    "Mol-AcAc",
    "H2O-PBE0TS",
    "SSE-PBE",
    "HfO2-PBE",
    "Alloy-MgCu",
    "Catalysis-PtCO",
    "Cathode-NMC622",
)
ATOMS = 600  # of each set
FEWEST = 4  # frames of each set


def main() -> None:
    """Print the tables."""
    parser = parser_for(__doc__)
    parser.add_argument("file", help="a model whose fitting nets are not rounded")
    parser.add_argument("--data", required=True, help="folder of the collection")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--bits", nargs="+", type=int, default=[4, 5, 6, 7, 8, 9])
    args = parser.parse_args()
    exact = load_model(args.file)
    frames = {name: sample(name, args.data) for name in args.sets}
    told = {name: predictions(exact, name, data) for name, data in frames.items()}
    own = {name: differences(told[name], frames[name], frames[name]) for name in frames}
    print("| bits | file, MB | packed, MB |\n|---|---|---|")
    print("| all | {:.2f} | {:.2f} |".format(*sizes(exact)))
    lines = []
    for bits in args.bits:
        potential = load_model(args.file)
        round_nets(potential, bits=bits)
        print("| {} | {:.2f} | {:.2f} |".format(bits, *sizes(potential)), flush=True)
        lines += [row(bits, name, potential, frames[name], told[name], own[name]) for name in frames]
    print(
        f"\nThe package has {BITS} bits. Energy in meV/atom, force in meV/Å, root mean squares.\n\n"
        "| bits | set | energy | after the fit | own error, after the fit | force | own error | share |\n"
        f"|{'---|' * 8}"
    )
    print("\n".join(lines))


def sample(name: str, folder: str) -> Dataset:
    """Some test frames."""
    data = load_registered(name, folder, split="test")
    return data.subset(spread_frames(data, max(FEWEST, round(ATOMS * len(data) / data.n_atoms))))


def predictions(potential: Potential, name: str, data: Dataset) -> list[Prediction]:
    """Of the set's head, or of the only one."""
    names = [head.name for head in potential.config.heads]
    head = names.index(registered_sets()[name].head) if len(names) > 1 else 0
    return predict_potential(potential, data, head=head)


def differences(
    first: list[Prediction], second: Iterable[Prediction | Frame], data: Dataset
) -> tuple[float, float, float]:
    """Root mean squares: energies, the same after the fit (meV/atom), forces (meV/Å)."""
    counts = data.compositions(data.elements)
    sizes = counts.sum(axis=1)
    energy = 1e3 * np.array([a.energy - b.energy for a, b in zip(first, second)]) / sizes
    shares = counts / sizes[:, None]
    left = energy - shares @ np.linalg.lstsq(shares, energy, rcond=None)[0]
    force = 1e3 * np.concatenate([(a.forces - b.forces).ravel() for a, b in zip(first, second)])
    return tuple(float(np.sqrt(np.mean(values**2))) for values in (energy, left, force))


def row(
    bits: int,
    name: str,
    potential: Potential,
    data: Dataset,
    told: list[Prediction],
    own: tuple[float, float, float],
) -> str:
    """One line of the table of changes."""
    energy, left, force = differences(predictions(potential, name, data), told, data)
    share = 100 * force / own[2]
    return (
        f"| {bits} | {name} | {energy:.2f} | {left:.3f} | {own[1]:.2f} | {force:.2f} | {own[2]:.1f} "
        f"| {share:.2f} % |"
    )


def sizes(potential: Potential) -> tuple[float, float]:
    """MB of the file, and of the file as a wheel packs it."""
    with tempfile.TemporaryDirectory() as folder:
        content = save_checkpoint(potential, Path(folder) / "model.safetensors").read_bytes()
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return len(content) / 1e6, (len(packer.compress(content)) + len(packer.flush())) / 1e6


if __name__ == "__main__":
    main()
