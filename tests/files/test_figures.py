"""Pictures go to files whole, without pyplot's figures."""

import matplotlib.pyplot as plt
import pytest

from dpa2calc.errors import OutputError
from dpa2calc.files.figures import check_figure, save_figure


def test_plots_stand_side_by_side_and_pyplot_keeps_nothing(tmp_path):
    taken = []
    open_figures = plt.get_fignums()
    path = save_figure(tmp_path / "new" / "two.png", taken.append, taken.append)
    assert path.read_bytes().startswith(b"\x89PNG") and len(taken) == 2
    assert taken[0].get_position().x1 < taken[1].get_position().x0
    assert plt.get_fignums() == open_figures
    save_figure(tmp_path / "together.pdf", taken.append, panels=3, size=(9, 3))
    assert len(taken[2]) == 3 and (tmp_path / "together.pdf").read_bytes().startswith(b"%PDF")


def test_a_failed_drawing_leaves_the_older_picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"older")

    def fails(_):
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        save_figure(path, fails)
    assert path.read_bytes() == b"older" and [p.name for p in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(OutputError, match=r"a\.png.* cannot be written"):
        save_figure(path / "b.png", lambda ax: None)


@pytest.mark.parametrize("name", ["figure", "figure.cif", "Cu_a3.61"])
def test_an_ending_of_no_picture_is_refused_before_anything_is_drawn(name, tmp_path):
    with pytest.raises(OutputError, match=rf"{name} has the ending of no picture; allowed: \..*\.png"):
        save_figure(tmp_path / name, pytest.fail)
    assert check_figure(tmp_path / "a.PDF").name == "a.PDF"
