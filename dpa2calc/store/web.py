"""Opening a web address with patience and redirects that have limits."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import urllib.request
from typing import IO

_MOST_REDIRECTS = 5


class RedirectRefused(Exception):
    """The server sends the caller to an address that is not followed."""


def open_url(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
    """Send a request and wait for the head of the answer, at most twice the timeout in all.

    Args:
        timeout: seconds without any data.

    Raises:
        RedirectRefused: from https to http.
        OSError, http.client.HTTPException, ValueError: no connection, an HTTP error, or an answer or address
            that makes no sense.
    """
    opener = urllib.request.build_opener(_Redirects, _HTTPHandler, _HTTPSHandler)
    response: http.client.HTTPResponse = opener.open(request, timeout=timeout)
    return response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, from one web address to another, never from a safe one to an open one."""

    max_redirections = _MOST_REDIRECTS

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        old, new = (url.partition(":")[0].lower() for url in (req.full_url, newurl))
        if old == "https" and new == "http":
            raise RedirectRefused(f"it redirects from {old} to {newurl[:80]!r}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _HTTP(http.client.HTTPConnection):
    """Waits for the head of an answer so long only; `timeout` itself restarts with each byte."""

    expired = False

    def getresponse(self) -> http.client.HTTPResponse:
        assert self.timeout is not None
        timer = threading.Timer(2.0 * self.timeout, self._cut)
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()
        finally:
            timer.cancel()
        if self.expired:
            raise TimeoutError("timed out")
        return response

    def _cut(self) -> None:
        self.expired = True
        with contextlib.suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


class _HTTPS(_HTTP, http.client.HTTPSConnection):
    pass


class _HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTP, req)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTPS, req, context=ssl.create_default_context())
