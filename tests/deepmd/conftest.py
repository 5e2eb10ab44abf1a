"""deepmd-kit lives in an environment of its own; the tests marked `deepmd` reach it by subprocess."""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
EVALUATE = Path(__file__).with_name("deepmd_evaluate.py")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The small golden set."""
    return GOLDEN


@pytest.fixture(scope="session")
def structures() -> dict[str, Atoms]:
    """Structures of the small golden set by name."""
    with np.load(GOLDEN / "structures.npz") as file:
        return {
            name: Atoms(
                list(file[f"{name}/symbols"]),
                positions=file[f"{name}/positions"],
                cell=file[f"{name}/cell"],
                pbc=file[f"{name}/pbc"],
            )
            for name in sorted({key.split("/")[0] for key in file.files})
        }


@pytest.fixture(scope="session")
def deepmd_python() -> Path:
    """The interpreter that has deepmd-kit."""
    path = os.environ.get("DPA2CALC_DEEPMD_PYTHON")
    if not path or not Path(path).exists():
        pytest.skip("set DPA2CALC_DEEPMD_PYTHON to an interpreter with deepmd-kit 3.2")
    return Path(path)


@pytest.fixture(scope="session")
def dp(deepmd_python: Path) -> Callable[..., None]:
    """Runs `dp ARGUMENTS` in a folder; a failure shows what it printed."""

    def run(*arguments: str | Path, cwd: Path) -> None:
        call(deepmd_python, [str(deepmd_python.with_name("dp")), *map(str, arguments)], cwd)

    return run


@pytest.fixture(scope="session")
def deepmd_results(deepmd_python: Path) -> Callable[..., dict[str, np.ndarray]]:
    """What deepmd-kit says of models: {"model|structure|quantity": array}."""

    def run(models: Sequence[str], cwd: Path, structures: Path | None = None) -> dict[str, np.ndarray]:
        source = structures or GOLDEN / "structures.npz"
        call(deepmd_python, [str(deepmd_python), str(EVALUATE), str(source), "results.npz", *models], cwd)
        with np.load(cwd / "results.npz") as file:
            return dict(file)

    return run


def call(python: Path, command: list[str], cwd: Path) -> None:
    """Run a command without this process's Python path, and fail with its output."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', '')}"
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
