"""Arrays and a JSON text in one file: whole, without pickle, and looked at before memory is taken."""

import io
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy

from dpa2calc.errors import DataError
from dpa2calc.files.arrays import read_arrays, write_arrays


def test_what_is_written_is_read(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3), "b": np.array(["x", "yz"]), "c": np.zeros((0, 3)),
        "d": np.array(3), "e": np.array([True]), "f": np.zeros(100_000),
    }  # fmt: skip
    for compress in (True, False):
        write_arrays(tmp_path / "a.npz", {"n": [1, None]}, arrays, compress=compress)
        header, found = read_arrays(tmp_path / "a.npz", "a test")
        assert header == {"n": [1, None]} and found.keys() == arrays.keys()
        assert all(np.array_equal(found[k], v) and found[k].dtype == v.dtype for k, v in arrays.items())
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def stored(array=b"", *, name="a.npy", shape=None):
    """A zip file with one array, which may say that it has another shape."""
    content = io.BytesIO()
    if shape is None:
        content.write(array)
    else:
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(content, header)
        content.write(array)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content.getvalue())
    return whole.getvalue()


def pickled():
    whole = io.BytesIO()
    np.savez(whole, a=np.array([{"a": 1}], dtype=object))
    return whole.getvalue()


def with_header(text):
    whole = io.BytesIO()
    np.savez(whole, __json__=np.array(text))
    return whole.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PK\x03\x04", b"text", stored(b"no array"), stored(b"12345678", shape=(10**13,)), pickled(),
        stored(b"\0" * 16, shape=(3,)), stored(b"\0" * 8, shape=(-1,)), with_header("{"),
        with_header("[" * 100_000), with_header('{"a": ' + "9" * 5000 + "}"),
        stored(b"\0" * 80, shape=(10,))[:-30],
    ],
)  # fmt: skip
def test_anything_else_is_a_data_error(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz is not a test, or is damaged"):
        read_arrays(tmp_path / "a.npz", "a test")


def test_no_file(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*a\.npz"):
        read_arrays(tmp_path / "a.npz", "a test")
