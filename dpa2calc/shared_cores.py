"""What makes runs get along on cores that they share: how long OpenMP's threads wait awake.

After each parallel operation OpenMP's threads wait for the next one. By default they do it awake for
milliseconds, on a core that another process may need, which may be the very one that they wait for: beside
other jobs a run then becomes ten times slower than its share of the cores.
"""

from __future__ import annotations

import os
import sys

# All that OpenMP's runtimes read about it (GNU, LLVM, Intel): if one is set, the user has decided.
_NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# About 30 microseconds: the pause between two operations of one step. Sleeping at once (0, what PASSIVE
# means to GNU's runtime by itself) costs a wake-up for each operation, also on a machine of one's own.
_SPINS = "2000"


def sleep_when_idle() -> bool:
    """Let OpenMP's threads sleep soon after their work; returns whether that was set here.

    OpenMP reads it from the environment when torch is loaded. So nothing is done if torch is loaded
    already, nor if the user has set one of the variables. Child processes inherit it.
    """
    if "torch" in sys.modules or any(name in os.environ for name in _NAMES):
        return False
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ["GOMP_SPINCOUNT"] = _SPINS
    return True
