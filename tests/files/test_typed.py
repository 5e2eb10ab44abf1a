"""Values are held against annotations: NumPy's numbers are numbers, and nothing is cast."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from dpa2calc.errors import ConfigError
from dpa2calc.files.typed import argument, build, check_fields, shown, typed

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (float, 6, 6.0),
        (float, np.float32(0.5), 0.5),
        (int, np.int16(3), 3),
        (int, np.array(5), 5),
        (int, 2.0, 2),
        (int, 1e3, 1000),
        (int, np.float64(5), 5),
        (str, np.str_("a"), "a"),
        (bool, np.True_, True),
        (float, np.array(2.0), 2.0),
        (float, 10**20, 1e20),
        (float | None, None, None),
        (float | None, np.float64(1), 1.0),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, ...], np.array([1, 2]), (1, 2)),
        (tuple[tuple[int, int], ...], [[0, 1]], ((0, 1),)),
        (tuple[float, ...], range(3), (0.0, 1.0, 2.0)),
        (tuple[int, int, int], np.array([1.0, 2.0, 3.0]), (1, 2, 3)),
        (Sequence[float], np.array([1, 2]), [1.0, 2.0]),
        (Sequence[float], {1.0: "a"}.keys(), [1.0]),
        (Sequence[str | Sequence[str]], ["a", ("b", "c")], ["a", ["b", "c"]]),
        (list[tuple[float, str]], [[0, "a"]], [(0.0, "a")]),
        (float | tuple[float, float], np.array([100, 300]), (100.0, 300.0)),
        (float | tuple[float, float], np.array(100), 100.0),
        (Sequence[float] | np.ndarray | None, np.ones(2), [1.0, 1.0]),
        (str | Mapping[str, float], {"Li": np.float64(2)}, {"Li": 2.0}),
        (dict[str, tuple[float, ...]], {"a": [1]}, {"a": (1.0,)}),
        (str | os.PathLike[str] | None, Path("a"), Path("a")),
        (Literal["a", "b"], "b", "b"),
        (Literal["a", "b"], np.str_("b"), "b"),
        (dict, {"a": 1}, {"a": 1}),
        (dict[str, Any], {"a": [1]}, {"a": [1]}),
        (Any, object, object),
    ],
)
def test_right_values(hint: Any, value: Any, expected: Any) -> None:
    found = typed(hint, value, "x")
    assert found == expected and type(found) is type(expected)


def test_what_the_annotation_does_not_tell_is_left_alone() -> None:
    once = iter(["a"])
    for hint, value in ((Iterable[str], once), (Sequence[Any], np.eye(2)), (Any, np.int64(1)), (Fixed, 5)):
        assert typed(hint, value, "x") is value
    assert list(once) == ["a"]


class Fixed:
    """A class that no annotation tells anything of."""


def test_which_numbers_are_floats_is_the_callers_choice() -> None:
    assert np.isnan(typed(float, NAN, "x", number=float)) and typed(tuple[float], [INF], "x", number=float)
    for value in (3, np.int64(3), 3.5):
        assert type(argument(float, value, "x")) is type(np.asarray(value).item())
    for value in (NAN, INF, 10**400):
        with pytest.raises(ConfigError, match="allowed: a finite number"):
            argument(float, value, "x")


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        *[(bool, v) for v in ("false", "true", 0, 1, 1.0, None, [], "")],
        *[(int, v) for v in (1.5, "1", True, None, [1], 2**70, NAN, INF, 1e30, np.float64(0.5))],
        *[(float, v) for v in ("6", NAN, INF, -INF, True, None, 10**400, 1j, [1.0])],
        *[(str, v) for v in (5, None, b"a", ["a"], "a\x00b", "\x00")],
        *[(tuple[str, ...], v) for v in ("OH", [1], {"O": 1}, None, [["O"]])],
        *[(tuple[tuple[int, int], ...], v) for v in ([[0]], [[0, 1, 2]], [0, 1], [["0", "1"]], [[0, 0.5]])],
        *[(Literal["a", "b"], v) for v in ("c", None, 0, ["a"])],
        *[(Sequence[float], v) for v in ("123", 5, np.array(5), {1.0: 2}, [1, "2"])],
        *[(float | Sequence[int], v) for v in ("a", None, [0.5], np.eye(2))],
        *[(Mapping[str, float], v) for v in ([1], {"Li": "2"}, {3: 1.0})],
        *[(dict[str, Any], v) for v in ([], None, "a", {1: 2})],
        *[(str | os.PathLike[str] | None, v) for v in (5, b"a", ["a"])],
        (tuple[int, int, int], (1, 2)),
        (np.ndarray, [1]),
        (dict, 5),
        (int, np.array([1, 2])),
    ],
)
def test_wrong_values(hint: Any, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"x.* is not allowed; allowed: "):
        typed(hint, value, "x")


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (Sequence[float], [1, "2"], r"x\[1\] = '2' is not allowed; allowed: a finite number"),
        (tuple[int, int], (1,), r"x = \(1,\) is not allowed; allowed: a list of 2 entries"),
        (Mapping[str, float], {"Li": "2"}, r"x\.Li = '2' is not allowed; allowed: a finite number"),
        (float | Sequence[int], "a", "x = 'a' is not allowed; allowed: a finite number or a list"),
        (Sequence[float] | np.ndarray, [1, np.nan], r"x\[1\] = nan is not allowed; allowed: a finite number"),
        (str | os.PathLike[str] | None, 5, "x = 5 is not allowed; allowed: a text or a path"),
        (np.ndarray, [1], r"x = \[1\] is not allowed; allowed: an array"),
        (np.ndarray, np.array(["a"]), "x = array.* is not allowed; allowed: an array of numbers"),
        (str, "a\x00", r"x = 'a\\x00' is not allowed; allowed: a text without NUL characters"),
        (Literal["a", "b"], "c", "x = 'c' is not allowed; allowed: a, b"),
    ],
)
def test_messages(hint: Any, value: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
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
        ({"widht": 2}, r"unknown option widht = 2; did you mean width\?"),
        ({}, "width is missing; it has no default"),
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


def test_of_a_long_list_no_more_is_written_than_is_shown() -> None:
    """A trajectory that is no path is such a value, once for each thing that it is not."""

    class Frame:
        asked = 0

        def __repr__(self) -> str:
            Frame.asked += 1
            return "Frame of\n  water"

    frames = [Frame() for _ in range(1000)]
    with pytest.raises(ConfigError, match=r"x = \[Frame of water, Frame of water, .*\.\.\. is not allowed"):
        typed(int, frames, "x")
    assert Frame.asked < 10
    for value in ([1, 2], (1,), [[1, 2], (3,)], list(range(100)), tuple("abc" * 30), [np.zeros((2, 2))] * 9):
        text = " ".join(repr(value).split())
        assert shown(value) == (text if len(text) <= 80 else f"{text[:77]}...")
