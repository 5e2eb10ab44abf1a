"""Downloads from a server on loopback: resumed, checked, from the next mirror where one fails."""

import hashlib
import threading
import warnings

import pytest
from mirror import DATA, MODEL, SHA, assert_complete, fetch

from dpa2calc.errors import DownloadError
from dpa2calc.store import download as download_module
from dpa2calc.store.download import check_sha256, download, file_sha256


@pytest.fixture
def part(tmp_path):
    """Where the file of `fetch` grows, in a folder that is there already."""
    (tmp_path / "deep").mkdir()
    return tmp_path / "deep" / "model.pt.part"


@pytest.mark.parametrize("path", ["good", "no-ranges", "redirect", "busy-once"])
def test_file_arrives_under_its_name(server, tmp_path, path):
    assert_complete(fetch(server, tmp_path, path))


def test_cut_connection_is_resumed_where_it_broke(server, tmp_path):
    assert_complete(fetch(server, tmp_path, "cut"))
    third = len(DATA) // 3 + 1
    assert server.log == [("/cut", None), ("/cut", f"bytes={third}-"), ("/cut", f"bytes={2 * third}-")]


def test_next_mirror_and_next_call_go_on_with_the_same_part(server, tmp_path):
    with pytest.raises(DownloadError, match="HTTP 404"):
        fetch(server, tmp_path, "no-ranges-cut", "missing")
    assert (tmp_path / "deep" / "model.pt.part").read_bytes() == DATA[:1000]
    assert not (tmp_path / "deep" / "model.pt").exists()
    server.log.clear()
    assert_complete(fetch(server, tmp_path, "cut-at-once", "good"))
    assert server.log[-1] == ("/good", "bytes=1000-")


def test_server_that_ignores_ranges_restarts_the_file(server, part, tmp_path):
    part.write_bytes(DATA[:5000])
    assert_complete(fetch(server, tmp_path, "no-ranges"))
    assert server.log == [("/no-ranges", "bytes=5000-")]


def test_complete_part_is_verified_and_renamed(server, part, tmp_path):
    part.write_bytes(DATA)
    assert_complete(fetch(server, tmp_path, "good"))


@pytest.mark.parametrize("old", [b"another file" * 100, DATA + b"too long"])
def test_part_of_another_file_is_thrown_away_once(server, part, tmp_path, old):
    part.write_bytes(old)
    assert_complete(fetch(server, tmp_path, "good"))
    assert server.log[-1] == ("/good", None)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "HTTP 404"),
        ("busy", "HTTP 503"),
        ("other", "wrong checksum: sha256 .* expected " + SHA),
        ("page", "web page instead of the file"),
        ("page-as-binary", "web page instead of the file"),
        ("cut-at-once", "connection broke after 0 of"),
    ],
)
def test_bad_mirror_is_named_and_the_next_one_used(server, tmp_path, path, reason):
    assert_complete(fetch(server, tmp_path / "two", path, "good"))
    with pytest.raises(DownloadError, match=rf"(?s)/{path}: .*{reason}") as caught:
        fetch(server, tmp_path / "one", path)
    message = str(caught.value)
    target = tmp_path / "one" / "deep" / "model.pt"
    assert f"from {server.url}{path} (sha256 {SHA}) and put it at {target}" in message
    assert not target.exists()


def test_page_or_wrong_range_does_not_cost_what_was_fetched_before(server, part, tmp_path):
    part.write_bytes(DATA[:5000])
    assert_complete(fetch(server, tmp_path, "page", "page-as-binary", "wrong-range", "good"))
    assert server.log[-1] == ("/good", "bytes=5000-")


def test_silent_server_times_out(server, tmp_path):
    with pytest.raises(DownloadError, match="timed out"):
        fetch(server, tmp_path, "silent", timeout=0.1)


def test_no_server_at_all_names_file_and_place(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(DownloadError, match=r"(?s)refused.*Fetch it on a machine with internet from http"):
        download(["http://127.0.0.1:9/x"], tmp_path / "x.pt", sha256=SHA)


def test_unpublished_checksum_warns_with_the_one_found(server, tmp_path):
    found = hashlib.sha256(MODEL).hexdigest()
    with pytest.warns(UserWarning, match=f"no checksum is published for model.pt.*{found}"):
        path = fetch(server, tmp_path, "model", sha256=None)
    assert path.read_bytes() == MODEL


def test_interrupt_keeps_the_part_for_the_next_time(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "_CHUNK", 1000)
    read = download_module._read
    calls = []

    def interrupted(response):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return read(response)

    monkeypatch.setattr(download_module, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(server, tmp_path, "good")
    assert (tmp_path / "deep" / "model.pt.part").read_bytes() == DATA[:3000]
    assert_complete(fetch(server, tmp_path, "good"))
    assert server.log[-1] == ("/good", "bytes=3000-")


def test_two_callers_at_once_share_one_download(server, tmp_path):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch(server, tmp_path, "cut"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3 and len(server.log) == 3  # three parts of one file, fetched once
    assert_complete(results[0])


def test_folder_that_cannot_be_written_is_an_error_with_the_way_out(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(DownloadError, match=r"cannot write .* another folder with .* DPA2CALC_CACHE"):
        download(["http://127.0.0.1:9/x"], blocker / "x.pt")


def test_progress_goes_to_stderr_only(server, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        download([server.url + "good"], tmp_path / "model.pt", sha256=SHA)
    out, err = capsys.readouterr()
    assert out == "" and "model.pt" in err and "100%" in err


def test_checksum_of_a_file(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(DATA)
    assert file_sha256(path) == SHA
    check_sha256(path, SHA.upper())
    with pytest.raises(DownloadError, match=r"wrong checksum.*expected 00.*Delete it"):
        check_sha256(path, "00" * 32)
