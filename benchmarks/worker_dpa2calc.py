"""One engine of a benchmark in its own process: DPA2Calculator in float32."""

import sys

from worker_common import serve


def main() -> None:
    """argv: model file, or name and :HEAD; structure file; threads; "compressed", "plain" or nothing."""
    from dpa2calc import DPA2Calculator  # isort: skip  # before torch: it says how OpenMP's threads wait

    import torch

    # deepmd-kit reads its thread number from the environment; ours follows PyTorch's.
    torch.set_num_threads(int(sys.argv[3]))
    model, _, head = sys.argv[1].partition(":")
    compress = {"compressed": True, "plain": False}.get("".join(sys.argv[4:]))
    options = {"dtype": "float32", "allow_unseen_elements": True, "compress": compress}
    serve(DPA2Calculator(model, head or None, **options), sys.argv[2])


if __name__ == "__main__":
    main()
