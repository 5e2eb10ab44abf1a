"""What holds for all tests. dpa2calc comes before torch, as its pages advise."""

import gc
import os

os.environ["MPLBACKEND"] = "Agg"  # figures of pyplot open no window
if "PYTEST_XDIST_WORKER" in os.environ:  # the cores have their processes
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys

import pytest

import dpa2calc  # noqa: F401

import emt_cases  # noqa: F401, isort: skip


def pytest_collection_finish():
    """What is imported and collected stays to the end: garbage is not looked for among it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def closed_figures():
    """No test meets the figures of those that ran before it: pyplot warns from the twenty-first on."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
