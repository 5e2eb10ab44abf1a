"""Downloads from a server on loopback that misbehaves in every way a mirror can."""

import contextlib
import hashlib
import http.server
import threading
import warnings

import pytest

from dpa2calc.errors import DownloadError
from dpa2calc.store import download as download_module
from dpa2calc.store.download import check_sha256, download, file_sha256
from dpa2calc.store.registry import resolve_model

MODEL = resolve_model("student-water").read_bytes()
DATA = bytes(range(256)) * 9000 + b"the end"
SHA = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Notes what it is asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Mirror)
        self.versions = 0
        self.log: list[tuple[str, str | None]] = []
        self.stop = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"


class Mirror(http.server.BaseHTTPRequestHandler):
    """Paths choose the behaviour; `server.log` keeps (path, Range header)."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self):
        start_header = self.headers.get("Range")
        self.server.log.append((self.path, start_header))
        start = int(start_header.removeprefix("bytes=").rstrip("-")) if start_header else 0
        getattr(self, self.path.strip("/").replace("-", "_"))(start)

    def answer(self, body, *, status=200, length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def ranged(self, start, body, data=DATA, **extra):
        if start:
            extra["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.answer(body, status=206 if start else 200, length=len(data) - start, **extra)

    def good(self, start):
        if start >= len(DATA):
            self.answer(b"", status=416, Content_Range=f"bytes */{len(DATA)}")
        else:
            self.ranged(start, DATA[start:])

    def cut(self, start):  # gives a third of the file, then hangs up
        self.ranged(start, DATA[start : start + len(DATA) // 3 + 1])

    def cut_at_once(self, start):
        self.ranged(start, b"")

    def no_ranges(self, start):
        self.answer(DATA)

    def no_ranges_cut(self, start):
        self.answer(DATA[:1000], length=len(DATA))

    def wrong_range(self, start):
        self.answer(DATA, status=206, Content_Range=f"bytes 0-{len(DATA) - 1}/{len(DATA)}")

    def missing(self, start):
        self.answer(b"no", status=404)

    def busy(self, start):
        self.answer(b"no", status=503)

    def busy_once(self, start):
        if self.server.log.count(("/busy-once", None)) == 1:
            self.answer(b"", status=503)
        else:
            self.good(start)

    def other(self, start):
        data = DATA[:-1] + b"?"
        self.ranged(start, data[start:])

    def page(self, start):
        self.answer(b"<html>please log in</html>", Content_Type="text/html; charset=utf-8")

    def page_as_binary(self, start):
        self.answer(b"\n <!DOCTYPE html><p>blocked", Content_Type="application/octet-stream")

    def redirect(self, start):
        self.answer(b"", status=302, Location="/good")

    def model(self, start):
        self.ranged(start, MODEL[start:], data=MODEL)

    def cut_model(self, start):
        self.ranged(start, MODEL[: len(MODEL) // 2], data=MODEL)

    def length_in_words(self, start):
        self.answer(DATA, length="1e5")

    def length_negative(self, start):
        self.answer(DATA, length="-5")

    def length_of_terabytes(self, start):
        self.answer(DATA, length=10**13)

    def bad_chunk(self, start):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"-5\r\nabc")
        self.close_connection = True

    def bad_location(self, start):
        self.answer(b"", status=302, Location="http://[::bad")

    def to_a_file(self, start):
        self.answer(b"", status=302, Location="file:///etc/hostname")

    def to_itself(self, start):
        self.answer(b"", status=302, Location="/to-itself")

    def packed(self, start):
        self.answer(DATA, Content_Encoding="gzip")

    def created(self, start):
        self.answer(DATA, status=201)

    def piece(self, start):
        self.answer(DATA[:100], status=206, Content_Range=f"bytes 0-99/{len(DATA)}")

    def empty(self, start):
        self.answer(b"")

    def comment_page(self, start):
        self.answer(b"\xef\xbb\xbf<!-- x --><html>log in</html>")

    def endless(self, start):
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while not self.server.stop.is_set():
                self.wfile.write(bytes(1 << 16))

    def drip(self, start):
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.drop_by_drop(DATA)

    def drip_head(self, start):
        self.drop_by_drop(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10_000)

    def drop_by_drop(self, data):
        self.close_connection = True
        with contextlib.suppress(OSError):
            for k in range(len(data)):
                self.wfile.write(data[k : k + 1])
                self.wfile.flush()
                if self.server.stop.wait(0.03):
                    return

    def grows(self, start):  # one byte more each time, and the promise of yet another
        self.ranged(start, b"x", data=bytes(start + 2))

    def changes(self, start):
        self.server.versions += 1
        self.ranged(start, DATA[start : start + 100_000], ETag=f'"{self.server.versions}"')

    def silent(self, start):
        self.server.stop.wait(5)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_module, "_PAUSE", 0.0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(server, folder, *paths, sha256=SHA, **options):
    urls = [server.url + path for path in paths]
    return download(urls, folder / "deep" / "model.pt", sha256=sha256, progress=False, **options)


def assert_complete(path):
    assert path.read_bytes() == DATA
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no .part is left


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


def test_server_that_ignores_ranges_restarts_the_file(server, tmp_path):
    part = tmp_path / "deep" / "model.pt.part"
    part.parent.mkdir()
    part.write_bytes(DATA[:5000])
    assert_complete(fetch(server, tmp_path, "no-ranges"))
    assert server.log == [("/no-ranges", "bytes=5000-")]


def test_complete_part_is_verified_and_renamed(server, tmp_path):
    part = tmp_path / "deep" / "model.pt.part"
    part.parent.mkdir()
    part.write_bytes(DATA)
    assert_complete(fetch(server, tmp_path, "good"))


@pytest.mark.parametrize("old", [b"another file" * 100, DATA + b"too long"])
def test_part_of_another_file_is_thrown_away_once(server, tmp_path, old):
    part = tmp_path / "deep" / "model.pt.part"
    part.parent.mkdir()
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


def test_page_or_wrong_range_does_not_cost_what_was_fetched_before(server, tmp_path):
    part = tmp_path / "deep" / "model.pt.part"
    part.parent.mkdir()
    part.write_bytes(DATA[:5000])
    assert_complete(fetch(server, tmp_path, "page", "page-as-binary", "wrong-range", "good"))
    assert server.log[-1] == ("/good", "bytes=5000-")


def test_silent_server_times_out(server, tmp_path):
    with pytest.raises(DownloadError, match="timed out"):
        fetch(server, tmp_path, "silent", timeout=0.1)


def test_no_server_at_all_names_file_and_place(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(DownloadError, match=r"(?s)refused.*Fetch it on a machine with internet from http"):
        download(["http://127.0.0.1:9/x"], tmp_path / "x.pt", sha256=SHA, progress=False)


def test_unpublished_checksum_warns_with_the_one_found(server, tmp_path):
    found = hashlib.sha256(MODEL).hexdigest()
    with pytest.warns(UserWarning, match=f"no checksum is published for model.pt.*{found}"):
        path = fetch(server, tmp_path, "model", sha256=None)
    assert path.read_bytes() == MODEL


LIES = {
    "length-in-words": "length that is no number: '1e5'",
    "length-negative": "length that is no number: '-5'",
    "length-of-terabytes": "announces 10,000,000,000,000 bytes",
    "bad-chunk": "IncompleteRead|makes no sense",
    "bad-location": "makes no sense",
    "to-a-file": "[Rr]edirect",
    "to-itself": "redirect",
    "packed": "packed",
    "created": "HTTP 201",
    "piece": "a piece of the file",
    "empty": "an empty file",
    "comment-page": "a web page",
    "endless": "sends more than 4,000,000 bytes",
    "drip": "too slow",
    "drip-head": "timed out",
    "grows": "connection broke after",
    "changes": "changed in between|connection broke",
}


@pytest.mark.parametrize("sha256", [SHA, None])
@pytest.mark.parametrize("path", LIES)
def test_a_mirror_that_lies_ends_and_the_next_one_is_used(server, tmp_path, monkeypatch, path, sha256):
    """Whatever a mirror answers, it takes bounded time and bytes, and is one failure among others."""
    monkeypatch.setattr(download_module, "_MOST_UNANNOUNCED", 4_000_000)
    monkeypatch.setattr(download_module, "_PROGRESS", 200_000)
    with pytest.raises(DownloadError, match=LIES[path]):
        fetch(server, tmp_path / "one", path, sha256=sha256, timeout=0.3)
    if sha256:
        assert_complete(fetch(server, tmp_path / "two", path, "good", sha256=sha256, timeout=0.3))
    else:
        with pytest.warns(UserWarning, match="no checksum is published"):
            kept = fetch(server, tmp_path / "two", path, "model", sha256=None, timeout=0.3)
        assert kept.read_bytes() == MODEL


@pytest.mark.parametrize("path", ["cut-model", "good"])
def test_without_a_checksum_only_a_model_is_kept(server, tmp_path, path):
    with pytest.raises(DownloadError, match=r"cannot be opened as a model|connection broke"):
        fetch(server, tmp_path, path, sha256=None)
    assert not (tmp_path / "deep" / "model.pt").exists()


def test_a_mirror_has_its_time(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "_MOST_SECONDS", 0.0)
    with pytest.raises(DownloadError, match="it took over 0 hours"):
        fetch(server, tmp_path, "cut")


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
    with pytest.raises(DownloadError, match=r"cannot write .*cache_dir=\.\.\. or .* DPA2CALC_CACHE"):
        download(["http://127.0.0.1:9/x"], blocker / "x.pt", progress=False)


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
