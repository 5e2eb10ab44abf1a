"""Values are held against annotations, never cast."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

from dpa2calc.errors import ConfigError
from dpa2calc.files.typed import build, check_fields, typed

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (float, 6, 6.0),
        (float, np.float32(0.5), 0.5),
        (int, np.int16(3), 3),
        (bool, np.True_, True),
        (float, np.array(2.0), 2.0),
        (float | None, None, None),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, ...], np.array([1, 2]), (1, 2)),
        (tuple[tuple[int, int], ...], [[0, 1]], ((0, 1),)),
        (Literal["a", "b"], "b", "b"),
        (dict[str, Any], {"a": [1]}, {"a": [1]}),
    ],
)
def test_right_values(hint: Any, value: Any, expected: Any) -> None:
    found = typed(hint, value, "x")
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        *[(bool, v) for v in ("false", "true", 0, 1, 1.0, None, [], "")],
        *[(int, v) for v in (1.5, 1.0, "1", True, None, [1], 2**70, NAN)],
        *[(float, v) for v in ("6", NAN, INF, -INF, True, None, 10**400, 1j, [1.0])],
        *[(str, v) for v in (5, None, b"a", ["a"])],
        *[(tuple[str, ...], v) for v in ("OH", [1], {"O": 1}, None, [["O"]])],
        *[(tuple[tuple[int, int], ...], v) for v in ([[0]], [[0, 1, 2]], [0, 1], [["0", "1"]], [[0, 0.5]])],
        *[(Literal["a", "b"], v) for v in ("c", None, 0, ["a"])],
        *[(dict[str, Any], v) for v in ([], None, "a", {1: 2})],
    ],
)
def test_wrong_values(hint: Any, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"x.* is not allowed; allowed: "):
        typed(hint, value, "x")


@dataclass(frozen=True, kw_only=True)
class Small:
    width: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "small")


def test_dataclasses() -> None:
    assert build(Small, {"width": 2, "names": ["a"]}) == Small(width=2, names=("a",))
    assert Small(width=2, names=["a"]).names == ("a",)  # type: ignore[arg-type]
    for values, words in (
        ({"width": "2"}, r"width = '2' is not allowed; allowed: a whole number"),
        ({"widht": 2}, "unknown key 'widht' in Small; did you mean 'width'"),
        ({}, "width is missing in Small"),
        ([], "allowed: a table"),
    ):
        with pytest.raises(ConfigError, match=words):
            build(Small, values)
    with pytest.raises(ConfigError, match=r"small\.width = 1\.5"):
        Small(width=1.5)  # type: ignore[arg-type]


def test_long_values_are_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        typed(int, "x" * 100_000, "n")
    assert len(str(caught.value)) < 200
    with pytest.raises(ConfigError, match="a int"):
        typed(bool, int("9" * 4000) ** 2, "n")
