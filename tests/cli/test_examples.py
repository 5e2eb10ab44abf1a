"""Every command line of README, docs and help can be pasted: it parses, and finds what it names."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
from example_files import ROOT, page_text, write_example_files

from dpa2calc.cli.arguments.deferred import DeferredCalculator
from dpa2calc.cli.main import VERBS, build_parser, main

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.ipynb")),
]
TORCHRUN = re.compile(r"^torchrun .*-m dpa2calc\.cli\.main ")
# The collection's data are not in the repository, as docs/datasets.md says.
WITHOUT_DATA = "dpa2calc train examples/default_model.toml"


def epilog(verb: str) -> str:
    return build_parser(verb)._subparsers._group_actions[0].choices[verb].epilog or ""  # type: ignore


def commands() -> list[str]:
    """Command lines, without comments, each once."""
    lines: list[str] = []
    for page in PAGES:
        text = page_text(page)
        for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL):
            lines += block.replace("\\\n", " ").splitlines()
        # in the text: whole command lines only, not `dpa2calc VERB FILE`
        lines += [found for found in re.findall(r"`(dpa2calc [^`\n]+)`", text) if " CONFIG" not in found]
    for verb in VERBS:
        lines += [line.strip() for line in epilog(verb).replace("\\\n", " ").splitlines()]
    found = [shlex.join(shlex.split(TORCHRUN.sub("dpa2calc ", line), comments=True)) for line in lines]
    kinds = ("FILE", "VERB", "|", "'|'", "'>'")
    return sorted({f for f in found if f.startswith("dpa2calc ") and not any(k in f.split() for k in kinds)})


class Reached(Exception):
    """A command got as far as its model: arguments, files, libraries and head were right."""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_example_files(folder)
    return folder


@pytest.fixture
def stopped_at_the_model(files, tmp_path, monkeypatch):
    """The files in the current folder; no model is loaded or fetched, nothing is trained."""

    def stop(*_: object, **__: object) -> None:
        raise Reached

    shutil.copytree(files, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(DeferredCalculator, "load", stop)
    monkeypatch.setattr("dpa2calc.store.registry.download", stop)
    for module, name in (
        ("fit.run", "pretrain"),
        ("finetune.finetune", "finetune"),
        ("distill.distill", "distill"),
        ("learning.learn", "active_learning"),
    ):
        monkeypatch.setattr(importlib.import_module(f"dpa2calc.training.{module}"), name, stop)


def test_all_verbs_have_examples_and_all_kinds_of_pages_are_seen():
    verbs = {line.split()[1] for line in commands()}
    assert set(VERBS) <= verbs and len(commands()) > 60


@pytest.mark.parametrize("line", commands())
def test_command_lines_run_as_pasted(line, stopped_at_the_model, capsys):
    words = shlex.split(line)[1:]
    if words[1:] in ([], ["--help"]) and words[0] != "models":
        with pytest.raises(SystemExit) as left:
            main(words if words[0].startswith("--") else [words[0], "--help"])
        assert left.value.code == 0
        return
    if words[0] == "distill":
        words = ["distil.toml" if word == "water.toml" else word for word in words]
    try:
        code = main(words)
    except Reached:
        return
    text = capsys.readouterr().err
    if line == WITHOUT_DATA:
        assert code == 1 and "there is no" in text
    else:
        assert code == 0, text
