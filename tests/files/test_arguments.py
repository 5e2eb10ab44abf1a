"""Values against annotations: NumPy's numbers are numbers, and nothing is cast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from dpa2calc.errors import ConfigError
from dpa2calc.files.arguments import conform

PathLike = Path | str


@pytest.mark.parametrize(
    ("hint", "given", "plain"),
    [
        (int, np.int64(5), 5),
        (int, np.array(5), 5),
        (int, 7, 7),
        (float, np.float32(0.5), 0.5),
        (float, np.int32(2), 2),
        (float, 3, 3),
        (float, np.array(1.5), 1.5),
        (bool, np.bool_(True), True),
        (str, np.str_("a"), "a"),
        (float | None, None, None),
        (float | None, np.float64(1), 1.0),
        (Sequence[float], np.array([1, 2]), [1, 2]),
        (Sequence[float], range(3), [0, 1, 2]),
        (Sequence[float], (np.float32(0.5), 1), [0.5, 1]),
        (Sequence[float], {1.0: "a"}.keys(), [1.0]),
        (tuple[int, int, int], np.array([1, 2, 3]), (1, 2, 3)),
        (tuple[float, ...], [1, np.float64(2)], (1, 2.0)),
        (float | tuple[float, float], np.array([100, 300]), (100, 300)),
        (float | tuple[float, float], np.array(100), 100),
        (Sequence[float] | np.ndarray | None, np.ones(2), [1.0, 1.0]),
        (str | Mapping[str, float], {"Li": np.float64(2)}, {"Li": 2.0}),
        (Literal["a", "b"], "c", "c"),  # the function that knows the choices says so
        (Any, object, object),
        (float, float("nan"), None),
    ],
)
def test_values_as_their_annotations_say(hint, given, plain):
    found = conform("x", given, hint)
    assert (found == plain and type(found) is type(plain)) or plain is None


@pytest.mark.parametrize(
    ("hint", "given", "text"),
    [
        (int, "5", "x is '5'; it must be a whole number"),
        (int, 5.0, r"x is 5\.0; it must be a whole number"),
        (int, True, "x is True; it must be a whole number"),
        (int, np.array([1, 2]), r"x is array\(\[1, 2\]\); it must be a whole number"),
        (float, "1", "it must be a number"),
        (float, 1j, "it must be a number"),
        (float, None, "it must be a number"),
        (float | None, "a", "x is 'a'; it must be a number"),
        (bool, 1, "x is 1; it must be True or False"),
        (str, 5, "it must be text"),
        (Sequence[float], "123", "it must be a list"),
        (Sequence[float], 5, "it must be a list"),
        (Sequence[float], np.array(5), "it must be a list"),
        (Sequence[float], [1, "2"], r"x\[1\] is '2'; it must be a number"),
        (Sequence[int], np.array([1.5]), r"x\[0\] is 1\.5; it must be a whole number"),
        (tuple[int, int, int], (1, 2), r"x is \(1, 2\); it must be 3 values"),
        (float | Sequence[int], "a", "it must be a number or a list"),
        (Mapping[str, float], [1], "it must be a mapping"),
        (Mapping[str, float], {"Li": "2"}, r"x\['Li'\] is '2'; it must be a number"),
        (Literal["a", "b"], ["a"], "it must be one of its choices"),
        (np.ndarray, [1], "it must be a ndarray"),
    ],
)
def test_other_types_are_refused(hint, given, text):
    with pytest.raises(ConfigError, match=text):
        conform("x", given, hint)
