"""Models by name: those inside the package and those that others published."""

from __future__ import annotations

import difflib
import json
import os
import sys
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from dpa2calc.errors import CheckpointError, DownloadError
from dpa2calc.files.typed import build
from dpa2calc.heads import did_you_mean
from dpa2calc.store.download import check_sha256, download, manual_instructions

_MODEL_SUFFIXES = (".safetensors", ".pt", ".pth", ".dp", ".yaml", ".yml", ".pb", ".ckpt")


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """What models.json knows of one model; the file itself is the authority on its heads.

    Attributes:
        name, aliases: what `resolve_model` accepts.
        description, licence, page: for people.
        shipped: path inside the package, or None for a model that is downloaded.
        file: name in the cache folder.
        urls: mirrors in the order in which they are tried.
        sha256: checksum of the file, or None if the authors published none.
        heads: names of its heads as far as known.
    """

    name: str
    description: str
    licence: str
    aliases: tuple[str, ...] = ()
    page: str = ""
    shipped: str | None = None
    file: str = ""
    urls: tuple[str, ...] = ()
    sha256: str | None = None
    heads: tuple[str, ...] = ()


@cache
def _entries() -> tuple[ModelEntry, ...]:
    text = resources.files(__package__).joinpath("models.json").read_text(encoding="utf-8")
    return tuple(build(ModelEntry, record) for record in json.loads(text)["models"])


def available_models() -> dict[str, ModelEntry]:
    """All models that have a name, the shipped ones first.

    Example:
        >>> available_models()["DPA-2.4-7M"].licence
        'CC-BY-4.0'
    """
    return {entry.name: entry for entry in _entries()}


def cache_folder() -> Path:
    """Where downloads are kept now: $DPA2CALC_CACHE, else the platform's cache folder.

    Raises:
        DownloadError: the user has no home.
    """
    if chosen := os.environ.get("DPA2CALC_CACHE"):
        return Path(os.path.expanduser(chosen))
    try:
        if sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        elif sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise DownloadError(
            "there is no home folder to keep downloads in; name one with the environment variable "
            "DPA2CALC_CACHE"
        ) from None
    return base / "dpa2calc"


def resolve_model(name_or_path: str | os.PathLike[str], *, offline: bool = False) -> Path:
    """The file of a model, downloaded if need be.

    Args:
        name_or_path: a registry name ("default", "DPA-2.4-7M"; case, '-' and '_' do not matter)
            or the path of a checkpoint. A registry name written exactly wins over a file of the
            same name; write "./default" or a `Path` to mean the file.
        offline: never use the network.

    Raises:
        CheckpointError: no such file, or no such name (the nearest names are listed).
        DownloadError: no mirror worked, a checksum is wrong, or offline and not in the cache;
            the message says which file to put where.
    """
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, str) and text in available_models():
        return _fetch(available_models()[text], offline)
    path = Path(os.path.expanduser(text))  # pathlib's raises RuntimeError for users that there are not
    if os.path.isfile(path):  # pathlib's raises OSError for names that are too long
        return path
    if text and os.path.isdir(path):
        raise CheckpointError(f"{path} is a folder; give the checkpoint file inside it")
    entry = _spellings().get(_normalise(text)) if isinstance(name_or_path, str) else None
    if entry is not None:
        return _fetch(entry, offline)
    looks_like_path = "/" in text or os.sep in text or path.suffix.lower() in _MODEL_SUFFIXES
    if looks_like_path or not isinstance(name_or_path, str):
        raise CheckpointError(f"there is no file {path.absolute()}{_near(path)}")
    close = difflib.get_close_matches(_normalise(text), _spellings(), n=3)
    meant = did_you_mean(_spellings()[spelling].name for spelling in close)
    raise CheckpointError(
        f"{text!r} is neither a file nor the name of a model{meant}; "
        f"names are {', '.join(available_models())}"
    )


def _fetch(entry: ModelEntry, offline: bool) -> Path:
    if entry.shipped is not None:
        path = Path(str(resources.files(__package__))) / entry.shipped
        if not path.is_file():
            raise CheckpointError(f"{path} is missing from the installed package; install dpa2calc again")
        return path
    target = cache_folder() / entry.file
    if target.is_file():
        if entry.sha256 is not None:
            check_sha256(target, entry.sha256)
        return target
    if offline:
        raise DownloadError(
            f"{entry.name} is not in the cache and offline=True was asked for. "
            f"{manual_instructions(entry.urls, target, entry.sha256)}"
        )
    return download(entry.urls, target, sha256=entry.sha256)


def _spellings() -> dict[str, ModelEntry]:
    return {_normalise(name): entry for entry in _entries() for name in (entry.name, *entry.aliases)}


def _normalise(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")


def _near(path: Path) -> str:
    """Name files beside the missing one that are spelt alike."""
    if not os.path.isdir(path.parent):
        return f" (nor a folder {path.parent.absolute()})"
    present = [p.name for p in path.parent.iterdir() if p.suffix.lower() in _MODEL_SUFFIXES]
    return did_you_mean(difflib.get_close_matches(path.name, present, n=3))
