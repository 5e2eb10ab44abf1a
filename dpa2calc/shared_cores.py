"""What makes runs get along on cores that they share: how long idle threads wait awake.

After each parallel operation threads of OpenMP and OpenBLAS wait for the next one. By default they do it
awake for milliseconds, on a core that another process may need, which may be the very one that they wait
for: beside other jobs a run then becomes ten times slower than its share of the cores.
"""

from __future__ import annotations

import os
import sys

# All that OpenMP's runtimes read about it (GNU, LLVM, Intel): if one is set, the user has decided.
_OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# About 30 microseconds: the pause between two operations of one step. Sleeping at once (0, what PASSIVE
# means to GNU's runtime by itself) costs a wake-up for each operation, also on a machine of one's own.
_SPINS = "2000"
# NumPy's and SciPy's threads: 2^18 cycles, about 100 microseconds, in place of 2^26.
_OPENBLAS, _CYCLES = "OPENBLAS_THREAD_TIMEOUT", "18"


def sleep_when_idle() -> None:
    """Let idle threads sleep soon after their work.

    OpenMP reads it from the environment when torch is loaded, OpenBLAS when NumPy is. So nothing is done
    for one that is loaded already, nor if the user has set its variable. Child processes inherit both.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in _OPENMP):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ["GOMP_SPINCOUNT"] = _SPINS
    if "numpy" not in sys.modules:
        os.environ.setdefault(_OPENBLAS, _CYCLES)
