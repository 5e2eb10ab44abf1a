"""The learning curve of a run."""

import numpy as np
import pytest

from dpa2calc.training.runs.log import History


def history(number: int) -> History:
    """Ten records of so many sets, whose force errors fall as k/step; one set has a wild one."""
    records = []
    for step in range(100, 1100, 100):
        sets = {
            f"set {k}": {"energy_rmse": float(k), "force_rmse": 1000.0 * k / step}
            for k in range(1, number + 1)
        }
        sets["set 1"]["energy_rmse"] = 1e6 if step == 100 else 1.0
        records.append({"kind": "train", "step": step, "sets": sets})
    return History(tuple(records), ())


@pytest.mark.parametrize("number", (3, 25))
def test_each_of_some_sets_has_a_curve_and_a_name(number):
    axes = history(number).plot()
    names = [text.get_text() for text in axes[1].get_legend().get_texts()]
    assert names == [f"set {k}" for k in range(1, number + 1)]


def test_a_crowd_of_sets_is_drawn_with_its_median():
    axes = history(41).plot()
    names = [text.get_text() for text in axes[1].get_legend().get_texts()]
    assert names == ["half of the sets", "median of 41 sets"]
    steps, values = axes[1].lines[-1].get_data()
    np.testing.assert_allclose(values, 21000.0 / steps)
    assert axes[0].get_ylim()[1] < 100  # not the wild one's 1e6
    assert axes[1].get_ylim()[0] > 0.1


def test_a_set_of_stresses_alone_has_an_error_to_show():
    found = {"energy_rmse": None, "force_rmse": None, "virial_rmse": 31.4159}
    lines = History(({"kind": "train", "step": 4, "sets": {"slab": found}},), ()).last_errors()
    assert lines[-1] == "  slab: 31.42 meV/atom of the virial"
