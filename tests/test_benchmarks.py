"""What benchmarks have in common."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_a_program_that_fails_has_the_last_word(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "common", raising=False)  # examples have one, too
    import student

    dp = tmp_path / "dp"
    dp.write_text('#!/bin/sh\necho "The custom OP library is missing" >&2\nexit 3\n')
    dp.chmod(0o755)
    monkeypatch.setattr(student, "DEEPMD_PYTHON", str(tmp_path / "python"))
    try:
        with pytest.raises(
            RuntimeError, match=r"(?s)dp --pt freeze .*exit code 3:.*custom OP library is missing"
        ):
            student.deepmd_compressed(tmp_path / "model.pt")
    finally:
        for name in ("student", "common"):
            sys.modules.pop(name, None)
