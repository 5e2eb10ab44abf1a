"""Batches made ahead: in order, so many and no more, and errors where they are asked for."""

import threading

import pytest

from dpa2calc.training.fit.prefetch import Prefetcher


def test_items_come_in_order_and_are_made_ahead_in_another_thread():
    made, threads = [], set()

    def make(step):
        made.append(step)
        threads.add(threading.current_thread())
        return step**2

    items = iter(Prefetcher(make, range(3, 20), ahead=4))
    assert next(items) == (3, 9)
    assert list(items) == [(step, step**2) for step in range(4, 20)]
    assert made == list(range(3, 20)) and threads.isdisjoint({threading.current_thread()})


def test_a_consumer_that_stops_ends_the_work():
    made = []
    items = iter(Prefetcher(made.append, range(10_000), ahead=2))
    next(items)
    items.close()
    assert len(made) <= 3


def test_an_error_is_raised_at_its_step():
    batches = Prefetcher(lambda step: 1 / (5 - step), range(10), ahead=3)
    seen = []
    with pytest.raises(ZeroDivisionError):
        for step, _ in batches:
            seen.append(step)
    assert seen == [0, 1, 2, 3, 4]
    assert list(Prefetcher(str, range(0), ahead=3)) == []
