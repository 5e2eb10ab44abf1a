"""Names in file names: kept apart, or refused."""

from __future__ import annotations

import pytest

from dpa2calc.errors import ConfigError
from dpa2calc.files.names import LONGEST, file_names


def test_names_stand_for_themselves():
    names = ["H2O-PBE0TS", "a/b", "a b", "Wässer", "x" * LONGEST]
    assert list(file_names(names, "sets").values()) == ["H2O-PBE0TS", "a_b", "a b", "Wässer", "x" * LONGEST]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/b", "c", "a_b"], r"sets: 'a/b' and 'a_b' would write the same files \(a_b\); rename one"),
        (["a\0b"], r"the name 'a\\x00b' cannot be part of a file name"),
        (["a\nb"], "cannot be part of a file name"),
        (["x" * (LONGEST + 1)], "at most 200 bytes"),
        (["ä" * 101], "at most 200 bytes"),
        (["a\ud800"], "cannot be part of a file name"),
        ([" "], "cannot be part of a file name"),
    ],
)
def test_names_that_collide_or_cannot_be_written_are_refused(names, message):
    with pytest.raises(ConfigError, match=message):
        file_names(names, "sets")
