"""What README and docs show exists: names, arguments, heads, command lines."""

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from example_files import ROOT, page_text

from dpa2calc import available_models, load_model
from dpa2calc.cli.main import VERBS
from dpa2calc.heads import resolve_head

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("docs/**/*.ipynb"))]
PACKAGES = ("dpa2calc", "dpa2calc.training", "dpa2calc.applications")


def blocks(page: Path, language: str) -> list[str]:
    """Code of a page."""
    return re.findall(rf"```{language}\n(.*?)```", page_text(page), flags=re.DOTALL)


def calls(page: Path) -> Iterator[tuple[str, ast.Call]]:
    """Calls of plain names in a page's Python, with the name."""
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id, node


def imported(page: Path) -> dict[str, Any]:
    """Everything a page imports from this package, and what the applications export."""
    applications = importlib.import_module("dpa2calc.applications")
    found = {name: getattr(applications, name) for name in applications.__all__}
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("dpa2calc"):
                module = importlib.import_module(str(node.module))
                found |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_hold_what_they_export(package):
    module = importlib.import_module(package)
    assert not [name for name in module.__all__ if not hasattr(module, name)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_and_arguments_in_the_documentation_exist(page):
    known = imported(page)
    for name, call in calls(page):
        if name in known and not any(k.arg is None for k in call.keywords):
            given = {str(k.arg): k.value for k in call.keywords}
            try:
                inspect.signature(known[name]).bind(*call.args, **given)
            except TypeError as error:
                pytest.fail(f"{ast.unparse(call)}: {error}")


def test_heads_in_the_documentation_exist():
    shipped = {name for name, entry in available_models().items() if entry.shipped}
    heads_of = functools.cache(lambda name: load_model(name).config.heads)
    checked = 0
    for page in PAGES:
        for name, call in calls(page):
            given = dict(zip(("model", "head"), call.args)) | {str(k.arg): k.value for k in call.keywords}
            chosen = [given.get(key, ast.Constant(None)) for key in ("model", "head")]
            if name == "DPA2Calculator" and all(isinstance(node, ast.Constant) for node in chosen):
                model, head = (ast.literal_eval(node) for node in chosen)
                if (model or "default") in shipped:
                    heads = heads_of(model or "default")
                    assert resolve_head(head, heads, model=f"{page.name}, {ast.unparse(call)}") in heads
                    checked += 1
    assert checked >= 5


def anchors(page: Path) -> set[str]:
    """Names of a page's headings in links, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page_text(page), flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.*?)\s*$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


ALL_PAGES = sorted(
    p for ending in ("md", "ipynb") for p in ROOT.rglob(f"*.{ending}") if not {".venv", "site"} & set(p.parts)
)


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_images_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page_text(page), flags=re.DOTALL)
    text = re.sub(r"`[^`]*`|\$\$.*?\$\$|\$[^$\n]+\$", "", text, flags=re.DOTALL)
    for image, link in re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue  # the internet
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"
        assert not image or target.stat().st_size > 1000, f"{page.name} shows {link}, which is no picture"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_and_benchmarks_that_a_page_names_exist(page):
    named = re.findall(r"`((?:tests|benchmarks)/[^\s`*]+)`", page.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]


def sources_of(script: Path) -> str:
    """The text of a script of examples/ or benchmarks/, and of what it imports from the repository."""
    found: dict[Path, str] = {}
    waiting = [script]
    while waiting:
        path = waiting.pop()
        found[path] = path.read_text(encoding="utf-8")
        for name in re.findall(r"^ *(?:from|import) ([\w.]+)", found[path], flags=re.M):
            made = [
                folder / f"{name.replace('.', '/')}.py" for folder in (path.parent, ROOT / "examples", ROOT)
            ]
            waiting += [module for module in made if module.exists() and module not in found]
    return "\n".join(found.values())


def test_options_of_scripts_that_a_page_names_exist():
    checked = 0
    for page in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md"):
        text = page_text(page)
        shown = [
            line
            for block in re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
            for line in block.splitlines()
        ]
        inline = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for line in (*shown, *(" ".join(words.split()) for words in inline)):
            for name, rest in re.findall(r"((?:examples|benchmarks)/[\w/]+\.py)([^;|&#]*)", line):
                source = sources_of(ROOT / name)
                for option in re.findall(r"(?<!\S)(--[a-z][\w-]*)", rest):
                    assert f'"{option}"' in source, f"{page.name} gives {name} the option {option}"
                    checked += 1
    assert checked > 30


def test_sections_that_the_code_refers_to_exist():
    """Such as docs/maths.md 6, or docs/maths.md 3 to 6, in a docstring."""
    sections = set(re.findall(r"^## (\d+)\.", (ROOT / "docs/maths.md").read_text(), flags=re.MULTILINE))
    for package in ("dpa2calc", "training", "applications"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for page, numbers in re.findall(r"(docs/\w+\.md)((?:,? ?(?:to|and)? \d+)*)", text):
                assert (ROOT / page).exists(), f"{path.name} names {page}"
                assert page != "docs/maths.md" or set(re.findall(r"\d+", numbers)) <= sections, path


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_lists_every_public_name(package):
    listed = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    module = importlib.import_module(package)
    names = {name for name in module.__all__ if not name.startswith("__")}
    assert names == set(re.findall(rf"^::: {re.escape(package)}\.(\w+)$", listed, flags=re.M)) - {"errors"}


def test_the_reference_lists_every_verb():
    page = (ROOT / "docs" / "reference" / "command_line.md").read_text()
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, flags=re.M)) == set(VERBS)


def test_figures_of_the_applications_are_small_and_all_shown():
    folder = ROOT / "docs" / "applications"
    page = (ROOT / "docs" / "applications.md").read_text(encoding="utf-8")
    for figure in folder.iterdir():
        assert figure.stat().st_size < 60_000 and f"(applications/{figure.name})" in page
