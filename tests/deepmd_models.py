"""Models of deepmd-kit: the golden set, and files of them that are changed or made up."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from dpa2calc.model.potential import Potential

SMALL = Path(__file__).parent / "data" / "golden"
LARGE = Path(os.environ.get("DPA2CALC_GOLDEN", "/nowhere"))


def golden_structures(root: Path) -> dict[str, Atoms]:
    """Structures of a golden set by name."""
    with np.load(root / "structures.npz") as file:
        return {
            name: Atoms(
                list(file[f"{name}/symbols"]),
                positions=file[f"{name}/positions"],
                cell=file[f"{name}/cell"],
                pbc=file[f"{name}/pbc"],
            )
            for name in sorted({key.split("/")[0] for key in file.files})
        }


def edited(path: Path, change: Callable[[Any], object]) -> Path:
    """A `.pt` file with its state dict changed in place."""
    content = torch.load(path, weights_only=True)
    change(content["model"])
    torch.save(content, path)
    return path


def same(a: Potential, b: Potential) -> bool:
    """Whether two models have the same options and, bit by bit, the same weights."""
    one, two = a.state_dict(), b.state_dict()
    return a.config == b.config and all(torch.equal(one[name], two[name]) for name in one)


def archive(path: Path, payload: bytes, *names: str) -> Path:
    """A zip file of torch's kind with this pickle, and with empty members of these names."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/data.pkl", payload)
        for name in names:
            file.writestr(name, b"")
    return path
