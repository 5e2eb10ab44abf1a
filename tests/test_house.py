"""The structure of the package: who imports whom, and what the wheel contains."""

from __future__ import annotations

import ast
import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {"dpa2calc": "dpa2calc", "training": "dpa2calc.training", "applications": "dpa2calc.applications"}


def modules() -> list[tuple[str, Path]]:
    """All modules as (dotted name as installed, file)."""
    found = []
    for folder, package in ROOMS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found.append((".".join((package, *(p for p in parts if p != "__init__"))), path))
    return found


def imports(name: str, path: Path, *, top_level: bool) -> set[str]:
    """Absolute names of what a module imports (of this package)."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    seen = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            seen |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            seen |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {item for item in seen if item.split(".")[0] in ("dpa2calc", "training", "applications")}


MODULES = modules()


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_rooms_import_only_what_they_may_know(name, path):
    room = ".".join(name.split(".")[:2])
    used = imports(name, path, top_level=room == "dpa2calc.cli")  # verbs import their rooms inside run
    assert not {u for u in used if u.split(".")[0] in ("training", "applications")}
    if room == "dpa2calc.applications":
        allowed = tuple(
            f"dpa2calc.{name}"
            for name in ("applications", "errors", "files", "lattice", "progress", "shown", "version")
        )
        assert not {u for u in used if u != "dpa2calc" and not u.startswith(allowed)}, used
    elif room == "dpa2calc.training":
        assert not {u for u in used if u.startswith("dpa2calc.applications")}
    else:
        assert not {u for u in used if u.startswith(("dpa2calc.training", "dpa2calc.applications"))}
    if room == "dpa2calc.files":
        assert not {
            u for u in used if u != "dpa2calc" and not u.startswith(("dpa2calc.files", "dpa2calc.errors"))
        }
    if room == "dpa2calc.model":
        rooms = ("model", "ambient", "graph", "errors", "files")
        outside = tuple(f"dpa2calc.{name}" for name in rooms)
        assert not {u for u in used if u != "dpa2calc" and not u.startswith(outside)}, used


def test_setup_cfg_lists_every_package_folder():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    folders = {
        ".".join((package, *path.parent.relative_to(ROOT / folder).parts))
        for folder, package in ROOMS.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert folders == listed


def test_no_file_needs_a_table_of_contents():
    long = {str(p.relative_to(ROOT)): n for _, p in MODULES if (n := len(p.read_text().splitlines())) > 420}
    assert not long


def test_library_code_neither_prints_nor_unpickles():
    for name, path in MODULES:
        if name.startswith("dpa2calc.cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "torch.jit.load", "torch.set_default_dtype"), (
                    f"{path}: {called}"
                )
                unsafe = [
                    k for k in node.keywords if k.arg == "weights_only" and ast.unparse(k.value) != "True"
                ]
                assert not (called == "torch.load" and unsafe), path
