"""Mirrors that lie: bounded time and bytes, one failure among others, and nothing kept that is no model."""

import pytest
from mirror import MODEL, SHA, assert_complete, fetch

from dpa2calc.errors import DownloadError
from dpa2calc.store import download as download_module

LIES = {
    "length-in-words": "length that is not a number: '1e5'",
    "length-negative": "length that is not a number: '-5'",
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
