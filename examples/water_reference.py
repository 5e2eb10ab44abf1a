"""The DFT reference of the water examples: g_OO of the frames of H2O-PBE0TS, as JSON.

    python examples/water_reference.py DATA_FOLDER

DATA_FOLDER holds train.extxyz.xz and test.extxyz.xz (see docs/data.md). Writes
examples/data/water_pbe0ts_rdf.json.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
from pathlib import Path

from ase.io import read

from dpa2calc.applications import radial_distribution

TARGET = Path(__file__).parent / "data" / "water_pbe0ts_rdf.json"


def main() -> None:
    """Read both files, write the curve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data
    frames = []
    for name in ("train", "test"):
        text = lzma.open(folder / f"{name}.extxyz.xz", "rt").read()
        frames += read(io.StringIO(text), index=":", format="extxyz")
    curve = radial_distribution(frames, "O-O", r_max=6.0, bin_width=0.05)
    print(curve.summary())
    record = {
        "source": "H2O-PBE0TS: deepmodeling/deepmd-kit examples/water/data, 400 frames, PBE0+TS",
        "r": [round(float(x), 4) for x in curve.r],
        "g": [round(float(x), 5) for x in curve.g],
        "g_error": [round(float(x), 5) for x in curve.g_error],
    }
    TARGET.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
