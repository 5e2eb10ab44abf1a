"""One engine of the student benchmark: our calculator with its own share of overhead, or deepmd-kit's."""

import sys

from worker_common import serve


def main() -> None:
    """argv: model file, structure file, threads, "compressed" or "plain"."""
    from dpa2calc import DPA2Calculator  # isort: skip  # before torch: it says how OpenMP's threads wait

    import torch

    torch.set_num_threads(int(sys.argv[3]))
    serve(
        DPA2Calculator(
            sys.argv[1], dtype="float32", allow_unseen_elements=True, compress=sys.argv[4] == "compressed"
        ),
        sys.argv[2],
    )


if __name__ == "__main__":
    main()
