"""Short calls for tests of screening, and the endings of its outputs."""

from importlib.util import find_spec

import pytest
from ase.calculators.emt import EMT

from dpa2calc.applications import read_screening, screen

PARQUET = pytest.mark.skipif(find_spec("pyarrow") is None, reason="pyarrow is not installed (extra: parquet)")
ENDINGS = ["jsonl", "db", pytest.param("parquet", marks=PARQUET)]


def emt(structures, task, output, **options):
    """Screened with EMT, without a bar."""
    return screen(structures, task, output=output, **{"calculator": EMT(), "progress": False, **options})


def by_name(path):
    return {record["name"]: record for record in read_screening(path)}
