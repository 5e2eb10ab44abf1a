"""How idle threads wait is set before torch and NumPy, where the user has not set it; no timing here."""

import os
import subprocess
import sys

import pytest

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OPENBLAS_THREAD_TIMEOUT")
SHOW = f"; import os; print([os.environ.get(n) for n in {NAMES!r}])"


def _after(code: str, **given: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in NAMES} | given
    done = subprocess.run(
        [sys.executable, "-c", code + SHOW], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


SET = "['PASSIVE', '2000', None, '18']"


@pytest.mark.parametrize(
    "code", ["import dpa2calc", "import dpa2calc.cli.main", "import dpa2calc.errors, torch"]
)
def test_set_before_torch(code):
    assert _after(code) == SET


def test_too_late_after_torch_and_numpy():
    assert _after("import torch, numpy, dpa2calc") == "[None, None, None, None]"
    assert _after("import numpy, dpa2calc") == "['PASSIVE', '2000', None, None]"


@pytest.mark.parametrize(
    "name, value", [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "7"), ("KMP_BLOCKTIME", "0")]
)
def test_what_the_user_has_set_stays(name, value):
    given = [value if n == name else None for n in NAMES[:3]]
    assert _after("import dpa2calc", **{name: value}) == str([*given, "18"])
    assert _after("import dpa2calc", OPENBLAS_THREAD_TIMEOUT="26") == "['PASSIVE', '2000', None, '26']"


def test_openmp_reads_it():
    code = "import dpa2calc, os; os.environ['OMP_DISPLAY_ENV'] = 'VERBOSE'; import torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch here does not use GNU's OpenMP")
    if not any(name in os.environ for name in NAMES):
        assert "GOMP_SPINCOUNT = '2000'" in done.stderr
