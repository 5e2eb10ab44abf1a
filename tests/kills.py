"""Work in a folder that is killed again and again, just before one of its files is renamed."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_SCRIPT = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
sys.path[:0] = {paths!r}
from {module} import {function} as work

def child(kill_at):
    count, replace = 0, os.replace
    def counted(a, b):
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(a, b)
    os.replace = counted
    work({folder!r})

for kill_at in {kills!r}:
    pid = os.fork()
    if pid == 0:
        child(kill_at)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    print("killed" if os.WIFSIGNALED(status) else "ended", os.waitstatus_to_exitcode(status))
"""


def work_with_kills(module: str, function: str, folder: Path, kills: Sequence[int], *, path: Path) -> None:
    """Call a function of a test's module with a folder: killed at the 4th, 9th, ... file, then to its end.

    Args:
        path: where the module is.
    """
    paths = [str(path), str(Path(__file__).parent)]
    script = _SCRIPT.format(
        paths=paths, module=module, function=function, folder=str(folder), kills=(*kills, 10**9)
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, cwd=folder.parent
    )
    lines = done.stdout.splitlines()
    assert lines[:3] == ["killed -9"] * 3 and lines[-1] == "ended 0", done.stderr
