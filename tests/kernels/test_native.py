"""Machine code of kernels: kept on disk for the next process, made again when its sources changed."""

import subprocess
import sys

import numpy as np
import pytest

from dpa2calc.kernels import native
from dpa2calc.kernels.native import Native, Ready

pytest.importorskip("numba")
CELLS = np.array([2, 0, 1, 0])


def sort(kernel: Native) -> list[int]:
    counts, order = np.zeros(4, dtype=np.int64), np.empty(4, dtype=np.int64)
    kernel(CELLS, counts, order)
    assert counts.tolist() == [0, 2, 3, 4]
    return order.tolist()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "made"))
    return tmp_path / "made"


def no_compiler(*_):
    raise AssertionError("compiled again")


def test_code_on_disk_is_used_until_its_sources_change(folder, monkeypatch):
    assert sort(Native("streaming.cells", "sort_by_cell")) == [1, 3, 2, 0]
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("dpa2calc.kernels.building.machine_code", no_compiler)
        assert sort(Native("streaming.cells", "sort_by_cell")) == [1, 3, 2, 0]
        file.write_bytes(b"other sources" + whole)
        with pytest.raises(AssertionError, match="compiled again"):
            sort(Native("streaming.cells", "sort_by_cell"))
    assert sort(Native("streaming.cells", "sort_by_cell")) == [1, 3, 2, 0]
    assert file.read_bytes()[:16] == whole[:16]


def test_the_first_compilation_is_announced_once(folder, caplog):
    native._announce.cache_clear()
    for name in ("sort_by_cell", "gather_positions"):
        kernel = Native("streaming.cells", name)
        rows = np.zeros((1, 3)), CELLS, np.zeros((4, 3), dtype=np.int64), np.eye(3), 0, 0, np.zeros((1, 3))
        kernel(*rows) if name == "gather_positions" else sort(kernel)
    assert caplog.text.count("compiling kernels for this machine, once; about 30 s") == 1
    caplog.clear()
    sort(Native("streaming.cells", "sort_by_cell"))
    assert "compiling" not in caplog.text


def test_a_process_that_finds_code_imports_no_compiler():
    sort(Native("streaming.cells", "sort_by_cell"))
    code = (
        "import sys, numpy as np; from dpa2calc.kernels.native import Native\n"
        "a = np.zeros(2, dtype=np.int64); b = np.zeros(3, dtype=np.int64)\n"
        "Native('streaming.cells', 'sort_by_cell')(a, b, a.copy()); print(b.tolist(), 'numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[0, 2, 2] False"


def test_kernels_work_where_nothing_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("")
    assert sort(Native("streaming.cells", "sort_by_cell")) == [1, 3, 2, 0]


def test_arguments_that_are_packed_once_are_the_same(folder):
    kernel, order = Native("streaming.cells", "sort_by_cell"), np.empty(4, dtype=np.int64)
    kernel(Ready(CELLS), np.zeros(4, dtype=np.int64), order)
    assert order.tolist() == [1, 3, 2, 0]


def test_arrays_must_be_contiguous():
    packed = native.Packed([], [])
    with pytest.raises(AssertionError, match="contiguous"):
        packed.add(np.zeros((4, 4))[:, 1])
