"""What setup.cfg declares: the oldest versions that work, and that CI tries them."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def oldest() -> dict[str, str]:
    run = subprocess.run([sys.executable, ROOT / ".ci/oldest.py"], capture_output=True, text=True, check=True)
    return dict(line.split("==") for line in run.stdout.splitlines())


def test_every_dependency_has_an_oldest_version(oldest):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    lists = [config["options"]["install_requires"], *(extras[e] for e in extras if e not in ("docs", "test"))]
    lines = [line for text in lists for line in text.splitlines() if ">=" in line]
    names = {line.split(">=")[0] for line in lines}
    assert names == set(oldest)


def test_versions_that_are_known_not_to_work_are_not_declared(oldest):
    # vesin 0.3 refuses an array of periodic directions
    assert tuple(map(int, oldest["vesin"].split("."))) >= (0, 4, 2)


def test_python_310_gets_a_reader_of_toml():
    text = (ROOT / "setup.cfg").read_text()
    assert 'tomli>=2.0; python_version < "3.11"' in text and "python_requires = >=3.10" in text
