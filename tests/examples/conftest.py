"""The scripts of examples/paper import each other by bare names, as when they are run."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def script() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script of examples/ or examples/paper by name, such as "multitask" or "reproduce_paper"."""
    places = [str(EXAMPLES / "paper"), str(EXAMPLES)]
    sys.path[:0] = places
    yield importlib.import_module
    for place in places:
        sys.path.remove(place)
