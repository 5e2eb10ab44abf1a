"""Files that appear whole: their permissions, and the places that links lead to."""

import os
import re
import stat
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dpa2calc.errors import ConfigError, OutputError
from dpa2calc.files.atomic import atomic_path, check_writable, write_text
from dpa2calc.files.lock import locked

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="permissions and links")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("umask", "expected"), [(0o077, 0o600), (0o027, 0o640), (0o022, 0o644)])
def test_new_files_are_as_open_as_the_umask_says(tmp_path, umask, expected):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a.txt") == expected


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    path = tmp_path / "a.txt"
    for given, kept in ((0o600, 0o600), (0o664, 0o664), (0o444, 0o644)):
        path.touch()
        path.chmod(given)
        write_text(path, "text")
        assert mode(path) == kept and path.read_text() == "text"


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    both = threading.Barrier(2)

    def work(text: str) -> None:
        with atomic_path(tmp_path / "a.txt") as temporary:
            both.wait(10)
            temporary.write_text(text)
            both.wait(10)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, ("one", "two"))) == [None, None]
    assert (tmp_path / "a.txt").read_text() in ("one", "two")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_place_that_a_link_leads_to_is_looked_at(tmp_path, monkeypatch):
    (tmp_path / "link.json").symlink_to(tmp_path / "elsewhere/real.json")
    (tmp_path / "elsewhere").touch()
    with pytest.raises(OutputError, match="elsewhere is a file, not a folder"):
        check_writable(tmp_path / "link.json")


def test_a_link_and_its_file_have_one_lock(tmp_path):
    (tmp_path / "link.traj").symlink_to(tmp_path / "real.traj")
    with (
        locked(tmp_path / "real.traj"),
        pytest.raises(ConfigError, match=r"another run is writing to .*link\.traj"),
        locked(tmp_path / "link.traj"),
    ):
        pass


def test_a_file_in_the_way_of_a_folder_is_named_and_no_file_of_ours(tmp_path):
    (tmp_path / "notes").write_text("mine")
    path = tmp_path / "notes" / "run" / "md.traj"
    reason = f"cannot be written: {tmp_path / 'notes'} is a file, not a folder; choose"
    with pytest.raises(OutputError, match=re.escape(f"{path.parent} {reason}")), locked(path):
        pass
    with pytest.raises(OutputError, match=re.escape(f"{path} {reason}")):
        write_text(path, "text")
