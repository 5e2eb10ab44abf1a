"""deepmd-kit lives in an environment of its own; the tests marked `deepmd` reach it by subprocess."""

import json
import lzma
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from deepmd_models import SMALL, golden_structures

JOBS = Path(__file__).with_name("deepmd_jobs.py")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The small golden set."""
    return SMALL


def unpacked(packed: Path, target: Path) -> Path:
    """An xz file of the golden set as deepmd-kit wrote it."""
    target.write_bytes(lzma.decompress(packed.read_bytes()))
    return target


@pytest.fixture
def medium(golden: Path, tmp_path: Path) -> Path:
    return unpacked(golden / "models" / "dpa2_tiny_medium" / "model.pt.xz", tmp_path / "medium.pt")


@pytest.fixture
def several(golden: Path, tmp_path: Path) -> Path:
    packed = golden / "models" / "mt_dpa2_tiny_sharefit_case" / "model.pt.xz"
    return unpacked(packed, tmp_path / "several.pt")


@pytest.fixture(scope="session")
def structures() -> dict[str, Atoms]:
    """Structures of the small golden set by name."""
    return golden_structures(SMALL)


@pytest.fixture(scope="session")
def deepmd_python() -> Path:
    """The interpreter that has deepmd-kit."""
    path = os.environ.get("DPA2CALC_DEEPMD_PYTHON")
    if not path or not Path(path).exists():
        pytest.skip("set DPA2CALC_DEEPMD_PYTHON to an interpreter with deepmd-kit 3.2")
    return Path(path)


@pytest.fixture(scope="session")
def deepmd_jobs(deepmd_python: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Lets deepmd-kit convert, freeze and evaluate: see deepmd_jobs.py."""

    def run(jobs: Sequence[Sequence[str | None]], folder: Path) -> dict[str, np.ndarray]:
        (folder / "jobs.json").write_text(json.dumps(jobs))
        files = [folder / "jobs.json", SMALL / "structures.npz", folder / "results.npz"]
        call(deepmd_python, [str(deepmd_python), str(JOBS), *map(str, files)], folder)
        with np.load(folder / "results.npz") as file:
            return dict(file)

    return run


@pytest.fixture(scope="session")
def deepmd_script(deepmd_python: Path) -> Callable[..., None]:
    """Runs a script with arguments in deepmd-kit's environment."""

    def run(script: Path, *arguments: object, folder: Path) -> None:
        call(deepmd_python, [str(deepmd_python), str(script), *map(str, arguments)], folder)

    return run


def call(python: Path, command: list[str], cwd: Path) -> None:
    """Run a command without this process's Python path, and fail with its output."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', '')}"
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=7200)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
