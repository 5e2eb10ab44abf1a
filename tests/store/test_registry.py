"""Names of models to files: shipped, cached, downloaded, or a clear error."""

import hashlib
import re
from pathlib import Path

import pytest

from dpa2calc.errors import CheckpointError, DownloadError
from dpa2calc.store import registry
from dpa2calc.store.registry import ModelEntry, available_models, cache_folder, resolve_model

CONTENT = b"weights of a published model"
SHA = hashlib.sha256(CONTENT).hexdigest()
ENTRY = ModelEntry(
    name="DPA-9.9-1M",
    aliases=("dpa9_large",),
    description="for tests",
    licence="MIT",
    file="dpa-9.9.pt",
    urls=("https://example.invalid/a.pt", "https://example.invalid/b.pt"),
    sha256=SHA,
)


@pytest.fixture
def test_models(monkeypatch, tmp_path):
    """A registry of one model, with a downloader that only notes what it is asked for."""
    asked = []
    monkeypatch.setenv("DPA2CALC_CACHE", str(tmp_path / "cache"))

    def fake_download(urls, target, *, sha256):
        asked.append((urls, target, sha256))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(CONTENT)
        return target

    shipped = ModelEntry(name="default", description="", licence="MIT", shipped="models.json")
    monkeypatch.setattr(registry, "_entries", lambda: (shipped, ENTRY))
    monkeypatch.setattr(registry, "download", fake_download)
    return asked


def test_published_models_are_listed_with_their_facts():
    models = available_models()
    assert next(iter(models)) == "default" and models["default"].shipped == "weights/default.safetensors"
    dpa = models["DPA-2.4-7M"]
    assert len(dpa.heads) == len(set(dpa.heads)) == 31 and "H2O_H2O_PD" in dpa.heads
    assert dpa.licence == "CC-BY-4.0" and len(dpa.urls) == 3
    assert models["DPA-2.3.1"].sha256 is None
    for entry in models.values():
        assert entry.description and entry.licence
        assert bool(entry.shipped) != bool(entry.file and entry.urls)
        assert all(url.startswith("https://") for url in entry.urls)
        assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)


def test_shipped_files_are_inside_the_package():
    folder = Path(registry.__file__).parent
    if not (folder / "weights").is_dir():
        pytest.skip("this checkout has no weights folder")
    for entry in available_models().values():
        if entry.shipped:
            assert (folder / entry.shipped).is_file(), f"{entry.name}: {entry.shipped} is missing"


def test_shipped_model_is_found_inside_the_package(test_models, monkeypatch):
    assert resolve_model("default") == Path(registry.__file__).parent / "models.json"
    broken = ModelEntry(name="default", description="", licence="MIT", shipped="weights/none.safetensors")
    monkeypatch.setattr(registry, "_entries", lambda: (broken,))
    with pytest.raises(CheckpointError, match=r"none\.safetensors is missing .* install dpa2calc again"):
        resolve_model("default")


@pytest.mark.parametrize("name", ["DPA-9.9-1M", "dpa_9.9_1m", "DPA9-Large"])
def test_published_model_is_downloaded_once_and_then_cached(test_models, tmp_path, name):
    path = resolve_model(name)
    assert path == tmp_path / "cache" / "dpa-9.9.pt"
    assert resolve_model(name, offline=True) == path
    assert test_models == [(ENTRY.urls, path, SHA)]


def test_damaged_file_in_the_cache_is_refused(test_models, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "dpa-9.9.pt").write_bytes(CONTENT[:-3])
    with pytest.raises(DownloadError, match=r"dpa-9\.9\.pt has the wrong checksum.*Delete it"):
        resolve_model("DPA-9.9-1M")
    assert test_models == []


def test_offline_says_which_file_to_put_where(test_models, tmp_path):
    with pytest.raises(DownloadError) as caught:
        resolve_model("DPA-9.9-1M", offline=True)
    message = str(caught.value)
    assert f"from {ENTRY.urls[0]} (sha256 {SHA}) and put it at {tmp_path / 'cache' / 'dpa-9.9.pt'}" in message
    assert "offline=True" in message and test_models == []


def test_cache_folder_is_decided_at_call_time(monkeypatch, tmp_path):
    monkeypatch.setenv("DPA2CALC_CACHE", str(tmp_path / "one"))
    assert cache_folder() == tmp_path / "one"
    monkeypatch.delenv("DPA2CALC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for platform, folder in (("linux", "xdg"), ("win32", "local"), ("darwin", "Library/Caches")):
        monkeypatch.setattr(registry.sys, "platform", platform)
        assert cache_folder() == tmp_path / folder / "dpa2calc"


def test_users_without_a_home(monkeypatch):
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    for name in ("DPA2CALC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DownloadError, match=r"no home folder .* DPA2CALC_CACHE"):
        cache_folder()
    with pytest.raises(CheckpointError, match=r"there is no file .*~nobody-of-this-name/x\.pt"):
        resolve_model("~nobody-of-this-name/x.pt")


def test_paths_are_taken_as_they_are(test_models, tmp_path, monkeypatch):
    file = tmp_path / "mine.pt"
    file.write_bytes(b"x")
    assert resolve_model(file) == resolve_model(str(file)) == file
    monkeypatch.chdir(tmp_path)
    Path("default").write_bytes(b"x")
    assert resolve_model("default").name == "models.json"  # a registry name wins ...
    assert resolve_model("./default") == resolve_model(Path("default")) == Path("default")  # ... or not
    assert resolve_model("mine.pt") == Path("mine.pt")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "DPA-9.9-2M",
            r"neither a file nor the name of a model; did you mean 'DPA-9\.9-1M'\?; names are default",
        ),
        ("qqqq", r"'qqqq' is neither a file nor the name of a model; names are default, DPA-9\.9-1M$"),
        ("model_old.pt", r"there is no file .*model_old\.pt; did you mean 'model-old\.pt'\?"),
        ("./nothing", r"there is no file .*nothing$"),
        ("nowhere/model.pt", r"there is no file .*model\.pt \(nor a folder .*nowhere\)"),
        (Path("DPA-9.9-1M"), "there is no file"),
        (".", "is a folder; give the checkpoint file"),
        ("", "'' is neither a file nor the name of a model"),  # of a variable of a shell that is not set
    ],
)
def test_unknown_models_are_errors_with_the_nearest_name(test_models, tmp_path, monkeypatch, asked, message):
    monkeypatch.chdir(tmp_path)
    Path("model-old.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=message):
        resolve_model(asked)


@pytest.mark.network
def test_first_mirror_of_the_real_model_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("DPA2CALC_CACHE", str(tmp_path))
    path = resolve_model("DPA-2.4-7M")
    assert path.stat().st_size > 1e6
