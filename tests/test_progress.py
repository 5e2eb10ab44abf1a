"""Progress: a bar on a terminal, lines in a file, nothing where it is not wanted."""

import io
import sys

import pytest

from dpa2calc import progress
from dpa2calc.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(stream, monkeypatch, *, shown=True, seconds=0.0):
    """Ten steps of so many seconds."""
    now = iter(seconds * k for k in range(10_000))
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress_bar(total=10, shown=shown, desc="work", mininterval=0) as bar:
        for _ in range(10):
            bar.update(1)
            bar.set_postfix_str("E=1")
    return stream.getvalue()


def test_a_terminal_has_a_bar_that_is_drawn_over(monkeypatch):
    text = work(Terminal(), monkeypatch)
    assert text.count("\r") > 10 and text.count("\n") == 1 and "10/10" in text


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, 1), (5.0, 3)])
def test_a_file_has_a_line_now_and_then_and_one_at_the_end(monkeypatch, seconds, lines):
    text = work(io.StringIO(), monkeypatch, seconds=seconds)
    assert "\r" not in text and text.isascii() and "10/10" in text.splitlines()[-1]
    assert 1 <= text.count("\n") <= 10 and (lines == 1) == (text.count("\n") == 1)


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_nothing_where_it_is_not_wanted(monkeypatch, stream):
    assert work(stream(), monkeypatch, shown=False) == ""
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(progress_bar([1, 2], shown=False)) == [1, 2]


def test_a_notebook_has_a_bar(monkeypatch):
    kind = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    assert "\r" in work(kind(), monkeypatch)
