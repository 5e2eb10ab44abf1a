"""How OpenMP's threads wait is set before torch, and only where the user has not set it; no timing here."""

import os
import subprocess
import sys

import pytest

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SHOW = f"; import os; print([os.environ.get(n) for n in {NAMES!r}])"


def _after(code: str, **given: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in NAMES} | given
    done = subprocess.run(
        [sys.executable, "-c", code + SHOW], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


SET = "['PASSIVE', '2000', None]"


@pytest.mark.parametrize(
    "code", ["import dpa2calc", "import dpa2calc.cli.main", "import dpa2calc.errors, torch"]
)
def test_set_before_torch(code):
    assert _after(code) == SET


def test_too_late_after_torch():
    assert _after("import torch, dpa2calc") == "[None, None, None]"


@pytest.mark.parametrize(
    "name, value", [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "7"), ("KMP_BLOCKTIME", "0")]
)
def test_what_the_user_has_set_stays(name, value):
    assert _after("import dpa2calc", **{name: value}) == str([value if n == name else None for n in NAMES])


def test_openmp_reads_it():
    code = "import dpa2calc, os; os.environ['OMP_DISPLAY_ENV'] = 'VERBOSE'; import torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch here does not use GNU's OpenMP")
    if not any(name in os.environ for name in NAMES):
        assert "GOMP_SPINCOUNT = '2000'" in done.stderr
