"""Trains with one engine in this process: dpa2calc INPUT FRAMES OUTPUT THREADS, or deepmd-kit's INPUT alone.

Started by training.py. The last line of stdout is JSON: the most memory that this program held (MB), and of
ours the seconds of each step after the first ones and the share of waiting.
"""

import json
import sys

from worker_common import peak_mb


def ours(content: dict, frames: str, output: str, threads: int) -> dict:
    """Our trainer on deepmd-kit's input, with Adam."""
    import dataclasses
    import statistics

    import torch

    from dpa2calc.deepmd.input_json import parse_input
    from dpa2calc.training import Dataset, TrainConfig, train

    torch.set_num_threads(threads)
    given = parse_input(content, neighbor_rule="nearest")
    config = TrainConfig(
        steps=content["training"]["numb_steps"],
        batch_atoms=1,
        log_every=2,
        optimizer="adam",
        learning_rate=1e-3,
        dtype=given.training["dtype"],
    )
    head = dataclasses.replace(given.config.heads[0], name="water")
    data = Dataset.read(frames, name="water").sample(40, seed=0)
    result = train(given.config.with_heads((head,)), data, config, output=output, progress=False)
    records = result.history.train[2:]
    times = [1.0 / r["steps_per_second"] for r in records]
    return {"times": times, "waiting": statistics.mean(r["waiting"] for r in records)}


def main() -> None:
    """Run it."""
    engine, path, *rest = sys.argv[1:]
    done: dict = {}
    if engine == "dpa2calc":
        with open(path) as file:
            content = json.load(file)
        done = ours(content, rest[0], rest[1], int(rest[2]))
    else:
        from deepmd.main import main as deepmd

        deepmd(["--pt", "train", path, "--skip-neighbor-stat"])
    print(json.dumps(done | {"peak_mb": peak_mb()}), flush=True)


if __name__ == "__main__":
    main()
