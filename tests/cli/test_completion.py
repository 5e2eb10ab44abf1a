"""`dpa2calc --completion SHELL`: what the Tab key offers."""

import shutil
import subprocess
import sys

import pytest

from dpa2calc.cli.completion import SHELLS
from dpa2calc.cli.main import VERBS, main


def script(shell, capsys) -> str:
    with pytest.raises(SystemExit) as left:
        main(["--completion", shell])
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_verbs_options_words_and_files(tmp_path, monkeypatch, capsys):
    pytest.importorskip("shtab", reason="shtab is not installed (extra: completion)")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script").write_text(script("bash", capsys))
    (tmp_path / "copper.cif").write_text("")

    def offered(*words: str) -> list[str]:
        run = 'source ./script; f=$(complete -p dpa2calc | sed "s/.*-F \\([^ ]*\\) .*/\\1/"); '
        run += 'COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); $f dpa2calc "${@: -1}"; '
        run += 'printf "%s\\n" "${COMPREPLY[@]}"'
        found = subprocess.run(
            ["bash", "-c", run, "bash", "dpa2calc", *words], capture_output=True, text=True
        )
        return [word.strip() for word in found.stdout.splitlines()]

    assert offered("rel") == ["relax"]
    assert set(VERBS) <= set(offered(""))
    assert offered("relax", "--fm") == ["--fmax"]
    assert offered("relax", "--optimizer", "lb") == ["lbfgs"]
    assert offered("eos", "cop") == ["copper.cif"]
    assert offered("eos", "x.cif", "--model", "cop") == ["copper.cif"]
    assert "--learning-rate" in offered("train", "--lear")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_knows_every_verb(shell, capsys):
    pytest.importorskip("shtab", reason="shtab is not installed (extra: completion)")
    text = script(shell, capsys)
    assert all(verb in text for verb in VERBS) and "--calculator" not in text  # which help hides


def test_without_the_package(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--completion", "bash"]) == 1
    assert (
        "--completion needs the package shtab: pip install 'dpa2calc[completion]'" in capsys.readouterr().err
    )
