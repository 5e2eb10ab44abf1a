"""Hooks of mkdocs: notebooks become pages, sources are laid out as installed, public names are found."""

from __future__ import annotations

import ast
import json
import re
import shutil
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

_sources = tempfile.TemporaryDirectory()


@event_priority(100)  # before mkdocstrings reads its options
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let mkdocstrings read the sources: `training` and `applications` inside `dpa2calc`."""
    root = Path(config["config_file_path"]).parent
    package = Path(_sources.name, "dpa2calc")
    if not package.exists():
        ignore = shutil.ignore_patterns("__pycache__", "weights")
        shutil.copytree(root / "dpa2calc", package, ignore=ignore)
        for name in ("training", "applications"):
            shutil.copytree(root / name, package / name, ignore=ignore)
    handlers = config["plugins"]["mkdocstrings"].config["handlers"]
    handlers["python"]["paths"] = [_sources.name]
    return config


def defined_in(root: Path, package: str) -> dict[str, str]:
    """Public names of a package, as it imports them, with the path of their definition."""
    folder = root / package.rpartition(".")[2]
    found = {}
    for node in ast.walk(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = f"{package}.{node.module}" if node.level else node.module
            found |= {alias.name: f"{module}.{alias.name}" for alias in node.names}
    return found


def on_page_markdown(markdown: str, config: MkDocsConfig, **_: object) -> str:
    """Lead `::: package.name` to the definition: `finetune` is a function and the folder around it too."""
    root = Path(config["config_file_path"]).parent
    for package in ("dpa2calc.training", "dpa2calc.applications", "dpa2calc"):
        for name, path in defined_in(root, package).items():
            markdown = re.sub(rf"^::: {re.escape(package)}\.{name}$", f"::: {path}", markdown, flags=re.M)
    return markdown


def page_text(notebook: str) -> str:
    """Markdown of a notebook's cells."""
    cells = json.loads(notebook)["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    return "\n\n".join(
        text if cell["cell_type"] == "markdown" else f"```python\n{text.rstrip(';')}\n```"
        for cell, text in zip(cells, texts)
    )


class Notebook(File):
    """A notebook that counts as a page, so that links to it lead to the page."""

    def is_documentation_page(self) -> bool:
        """Pages are put into the navigation, other files are copied."""
        return True

    @property
    def content_string(self) -> str:
        """What mkdocs renders."""
        return page_text(Path(str(self.abs_src_path)).read_text(encoding="utf-8"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Exchange every notebook for a page."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            files.remove(file)
            files.append(
                Notebook(file.src_uri, config["docs_dir"], config["site_dir"], config["use_directory_urls"])
            )
    return files
