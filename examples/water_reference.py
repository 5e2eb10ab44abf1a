"""The DFT reference of the water examples: g(r) and the O-O-O angle of the frames of H2O-PBE0TS, as JSON.

    python examples/water_reference.py DATA_FOLDER

DATA_FOLDER holds train.extxyz.xz and test.extxyz.xz (see docs/data.md). Writes
examples/data/water_pbe0ts_rdf.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from paper.science import read_set

from dpa2calc.applications import angular_distribution, radial_distributions

TARGET = Path(__file__).parent / "data" / "water_pbe0ts_rdf.json"
PAIRS = ("O-O", "O-H", "H-H")


def rounded(values: Any, digits: int = 5) -> list[float]:
    """A short list for the file."""
    return [round(float(value), digits) for value in values]


def main() -> None:
    """Read both files, write the curves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    frames = read_set(parser.parse_args().data)
    curves = radial_distributions(frames, PAIRS, r_max=6.0, bin_width=0.05)
    cutoff = curves["O-O"].first_minimum()
    angles = angular_distribution(frames, "O-O-O", cutoff=cutoff, bin_width=2.0)
    for result in (*curves.values(), angles):
        print(result.summary())
    record = {
        "source": "H2O-PBE0TS: deepmodeling/deepmd-kit examples/water/data, 400 frames, PBE0+TS",
        "r": rounded(curves["O-O"].r, 4),
        "g": rounded(curves["O-O"].g),
        "g_error": rounded(curves["O-O"].g_error),
        "pairs": {name: {"g": rounded(c.g), "g_error": rounded(c.g_error)} for name, c in curves.items()},
        "angle": {
            "cutoff": round(cutoff, 3),
            "degrees": rounded(angles.angle, 1),
            "density": rounded(angles.density, 6),
            "density_error": rounded(angles.density_error, 6),
        },
    }
    TARGET.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
