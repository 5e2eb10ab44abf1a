"""Warnings collected by thread: each has its own, everybody's filters come back."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from dpa2calc.applications.shared.warned import collected_warnings


def test_each_thread_has_its_own_and_all_of_them():
    together = threading.Barrier(3)

    def work(name):
        with collected_warnings() as texts:
            together.wait()
            for number in range(50):
                warnings.warn(f"{name} {number % 2}", stacklevel=1)
            together.wait()
        return texts

    before = list(warnings.filters), warnings.showwarning
    with ThreadPoolExecutor(3) as pool:
        found = dict(zip("abc", pool.map(work, "abc")))
    assert found == {name: [f"{name} {number % 2}" for number in range(50)] for name in "abc"}
    assert (list(warnings.filters), warnings.showwarning) == before


def test_those_of_other_threads_are_shown():
    inside, over = threading.Event(), threading.Event()

    def collecting():
        with collected_warnings() as texts:
            inside.set()
            over.wait(10)
        return texts

    with ThreadPoolExecutor(1) as pool, pytest.warns(UserWarning, match="mine"):
        found = pool.submit(collecting)
        inside.wait(10)
        warnings.warn("mine", stacklevel=1)
        over.set()
        assert found.result() == []


def test_inner_ones_stay_inside_and_an_error_puts_all_back():
    before = warnings.showwarning
    with pytest.raises(ValueError, match="stop"), collected_warnings() as outer:
        with collected_warnings() as inner:
            warnings.warn("inner", stacklevel=1)
        warnings.warn("outer", stacklevel=1)
        raise ValueError("stop")
    assert (outer, inner) == (["outer"], ["inner"])
    assert warnings.showwarning is before
