"""The loop over many structures: bounded batches of similar sizes, results in the order of the structures."""

import pytest

from dpa2calc.engine.batches import batches, in_batches, in_order


def test_batches_keep_the_order_and_the_limit_but_for_one_large_structure():
    assert list(batches([4, 4, 20, 3, 3, 3], 9)) == [[0, 1], [2], [3, 4, 5]]
    assert list(batches([5, 5], 10)) == [[0, 1]] and list(batches([], 10)) == []


@pytest.mark.parametrize("limit", [1, 50, 10_000])
def test_results_come_in_the_order_of_the_structures(limit):
    sizes, seen, done = [5, 900, 3, 3, 40, 1, 7], [], []

    def work(places):
        seen.append(places)
        return [10 * place for place in places]

    assert in_order(in_batches(work, sizes, limit), done.append) == [0, 10, 20, 30, 40, 50, 60]
    assert sorted(place for batch in seen for place in batch) == list(range(7))
    assert all(sum(sizes[place] for place in batch) <= limit or len(batch) == 1 for batch in seen)
    assert sum(done) == 7
    in_turn = [sizes[place] for batch in seen for place in batch]
    assert in_turn == sorted(in_turn)  # similar sizes together, so that little is padded
    assert in_order(in_batches(work, [], limit)) == []
