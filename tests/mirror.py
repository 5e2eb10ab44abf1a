"""A server on loopback that misbehaves in every way a mirror can, and what is fetched from it."""

import contextlib
import hashlib
import http.server
import threading

from dpa2calc.store.download import download
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


def fetch(server, folder, *paths, sha256=SHA, **options):
    urls = [server.url + path for path in paths]
    return download(urls, folder / "deep" / "model.pt", sha256=sha256, **options)


def assert_complete(path):
    assert path.read_bytes() == DATA
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no .part is left
