"""One engine of a benchmark in its own process: deepmd-kit through its ASE calculator.

Reads a model file and a structure, then answers every line on stdin with the seconds of one evaluation.
Knows nothing of dpa2calc, because it runs in deepmd-kit's environment.
"""

import sys

from worker_common import serve


def main() -> None:
    """argv: model file, structure file."""
    from deepmd.calculator import DP

    serve(DP(model=sys.argv[1]), sys.argv[2])


if __name__ == "__main__":
    main()
