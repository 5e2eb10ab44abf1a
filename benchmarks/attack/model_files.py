"""Damaged and forged model and frame files: each must be read right or refused in the package's own words.

    python benchmarks/attack/model_files.py --files 500 --seed 1

Good files of every format are made, then damaged: bytes flipped in the header or anywhere, the end cut off,
sizes and counts forged, options given another type or an absurd value. Each is opened in a process of its own
with 4 GB and 20 s. Printed are, for each format, how many were read with the same numbers, read with others
(a flipped digit of a weight or a cutoff cannot be told), refused, and failed: by a foreign error, without an
answer, dead.
"""

import argparse
import collections
import json
import lzma
import random
import re
import select
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SECONDS = 20.0
KINDS = ("same", "other numbers", "refused", "FOREIGN", "NO ANSWER", "DIED", "OVER 1 GB")
ODD: tuple[Any, ...] = (
    None, True, "false", "", "OH", -1, 0, 1.5, 10**9, 10**18, "9" * 40, 1e308, float("nan"), [], [[]], {},
    [None], ["H"] * 3, [10**9], [0, 77], {"a": 1}, "auto", "x" * 5000,
)  # fmt: skip

CHILD = """
import resource, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from dpa2calc.applications import Frames
from dpa2calc.errors import DPA2CalcError
from dpa2calc.files.identity import digest
from dpa2calc.store.load import load_model
from dpa2calc.training import Dataset
base = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (base + 4 * 2**30,) * 2)
def work(path):
    if ".extxyz" in path:
        read = [list(Frames(path)), [frame.atoms() for frame in Dataset.read(path)]]
        return digest(*[a.positions for frames in read for a in frames])
    potential = load_model(path)
    state = potential.state_dict()
    return digest(repr(potential.config), *[state[name].numpy() for name in sorted(state)])
for line in sys.stdin:
    try:
        said = "read " + work(line.strip())
    except DPA2CalcError as error:
        said = "refused " + type(error).__name__
    except BaseException as error:
        said = f"FOREIGN {type(error).__name__}: {error}".replace("\\n", " ")[:200]
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, said, flush=True)
"""


class Reader:
    """A process that opens files, replaced when it hangs or dies."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.peak = 0

    def open(self, path: Path) -> str:
        """What became of a file: "read DIGEST", "refused CLASS", "FOREIGN ...", "NO ANSWER", "DIED"."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self.peak = 0
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        # starting a child takes a few seconds of its own
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS + (20.0 if not self.peak else 0.0))
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.stop()
            return "DIED" if ready else "NO ANSWER"
        peak, _, said = line.strip().partition(" ")
        grown, self.peak = int(peak) > 1400 and int(peak) > self.peak, int(peak)
        if grown:
            self.stop()
            return f"OVER 1 GB {peak} MB, {said}"
        return said

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def good_files(folder: Path) -> list[Path]:
    """One small model in every format that can be read, and a few frames."""
    import torch

    from dpa2calc.deepmd.branch import PREFIX
    from dpa2calc.deepmd.containers import open_source
    from dpa2calc.deepmd.write import write_deepmd
    from dpa2calc.model.config import DPA1Config, FittingConfig, HeadConfig, ModelConfig
    from dpa2calc.model.potential import Potential
    from dpa2calc.store.checkpoint import save_checkpoint

    torch.manual_seed(0)
    head = HeadConfig(name="water", elements=("O", "H"), fitting=FittingConfig(neuron=(6, 6)))
    descriptor = DPA1Config(attn_layer=1, attn=8, neuron=(4, 8), axis_neuron=2, nsel=20)
    config = ModelConfig(type_map=("O", "H"), descriptor=descriptor, heads=(head,), neighbor_rule="nearest")
    potential = Potential(config)
    files = [save_checkpoint(potential, folder / "good.safetensors")]
    files += [write_deepmd(potential, folder / name) for name in ("good.pt", "good.dp")]
    files += [_as_yaml(folder / "good.dp", folder / "good.yaml")]
    branch = open_source(folder / "good.pt").branches[0]
    files += [_frozen(branch.params, {PREFIX + k: v for k, v in branch.arrays.items()}, folder / "good.pth")]
    frames = "".join(
        f'3\nLattice="9 0 0 0 9 0 0 0 9" energy=-{k}.5\nO 0 0 {k}\nH 1 0 0\nH 0 1 0\n' for k in range(5)
    )
    (folder / "good.extxyz").write_text(frames)
    for name in ("good.pt", "good.extxyz"):
        (folder / f"{name}.xz").write_bytes(lzma.compress((folder / name).read_bytes()))
    return [*files, folder / "good.extxyz", folder / "good.pt.xz", folder / "good.extxyz.xz"]


def _as_yaml(source: Path, target: Path) -> Path:
    import numpy as np
    import yaml

    from dpa2calc.deepmd.containers import read_hdf5_tree

    def plain(node: Any) -> Any:
        if isinstance(node, np.ndarray):
            return {"@class": "np.ndarray", "@version": 1, "dtype": str(node.dtype), "value": node.tolist()}
        if isinstance(node, dict):
            return {key: plain(value) for key, value in node.items()}
        return [plain(item) for item in node] if isinstance(node, list) else node

    with open(source, "rb") as file:
        target.write_text(yaml.safe_dump(plain(read_hdf5_tree(file, source))))
    return target


def _frozen(params: dict[str, Any], arrays: dict[str, Any], target: Path) -> Path:
    import torch

    root = torch.nn.Module()
    for name, value in arrays.items():
        *outer, last = name.split(".")
        at = root
        for part in outer:
            if not hasattr(at, part):
                at.add_module(part, torch.nn.Module())
            at = getattr(at, part)
        at.register_buffer(last, value)
    root.model_def_script = json.dumps(params)  # type: ignore[assignment]
    torch.jit.save(torch.jit.script(root), target)
    return target


def flip(data: bytes, rng: random.Random) -> bytes:
    """One to eight bytes changed anywhere."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def flip_header(data: bytes, rng: random.Random) -> bytes:
    """The same within the first or the last 3000 bytes, where headers and directories are."""
    size = min(3000, len(data) // 2)
    if rng.random() < 0.5:
        return flip(data[:size], rng) + data[size:]
    return data[:-size] + flip(data[-size:], rng)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data))]


def forge_number(data: bytes, rng: random.Random) -> bytes:
    """A number in words or in eight or four bytes becomes a huge or a negative one."""
    if rng.random() < 0.6 and (found := list(re.finditer(rb"(?<![\d.])\d+(?![\d.])", data))):
        hit = rng.choice(found)
        return (
            data[: hit.start()]
            + rng.choice([b"9" * 12, b"-5", b"1e9", b"0", b"9" * 5000])
            + data[hit.end() :]
        )
    at = rng.randrange(max(1, len(data) - 8))
    value = rng.choice([2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**64 - 1])
    size = rng.choice([4, 8])
    return data[:at] + (value % 256**size).to_bytes(size, "little") + data[at + size :]


def forge_text(data: bytes, rng: random.Random) -> bytes:
    """A value after a colon or an equals sign becomes an odd one."""
    found = list(re.finditer(rb'"?[a-z_]+"?[:=] ?("[^"]*"|[-\w.]+|\[[^\[\]]*\])', data))
    if not found or data[:4] in (b"PK\x03\x04", b"\x89HDF"):
        return flip_header(data, rng)
    hit = rng.choice(found[: max(200, len(found) // 50)])
    return data[: hit.start(1)] + json.dumps(rng.choice(ODD)).encode() + data[hit.end(1) :]


def forge_option(path: Path, rng: random.Random) -> bytes:
    """The same for one option of a model, in a file that is sound otherwise."""
    import h5py
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    forged = path.with_name("forged")
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["dpa2calc"])
        _forge_leaf(header, rng)
        save_file(load_file(path), forged, metadata={"dpa2calc": json.dumps(header)})
    elif path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        _forge_leaf(content["model"]["_extra_state"]["model_params"], rng)
        torch.save(content, forged)
    elif path.suffix == ".dp":
        forged.write_bytes(path.read_bytes())
        with h5py.File(forged, "r+") as file:
            tree = json.loads(file.attrs["json"])
            _forge_leaf(tree["model"], rng)
            file.attrs["json"] = json.dumps(tree)
    else:
        return forge_text(path.read_bytes(), rng)
    return forged.read_bytes()


def _forge_leaf(tree: Any, rng: random.Random) -> None:
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(tree)
    node, key = rng.choice(places)
    node[key] = rng.choice(ODD)


def double(data: bytes, rng: random.Random) -> bytes:
    """A piece is there twice."""
    first, last = sorted(rng.randrange(len(data)) for _ in range(2))
    return data[:last] + data[first:last] + data[last:]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip, flip_header, cut, forge_number, forge_number, forge_text, double,
)  # fmt: skip


def damaged(files: list[Path], count: int, seed: int) -> Iterator[tuple[Path, str, bytes]]:
    """(good file, damage, content of the bad one), `count` of them."""
    rng = random.Random(seed)
    for k in range(count):
        path, work = files[k % len(files)], rng.choice(DAMAGES)
        data = path.read_bytes()
        if rng.random() < 0.4:
            yield path, "forge_option", forge_option(path, rng)
            continue
        if path.suffix == ".xz" and rng.random() < 0.5:  # damage what is inside
            yield path, work.__name__, lzma.compress(work(lzma.decompress(data), rng))
        else:
            yield path, work.__name__, work(data, rng)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    bad = 0
    with tempfile.TemporaryDirectory() as where:
        folder, reader = Path(where), Reader()
        files = good_files(folder)
        right = {path: reader.open(path) for path in files}
        unread = {path.name: said for path, said in right.items() if not said.startswith("read ")}
        if unread:
            raise SystemExit(f"good files are not read: {unread}")
        for k, (path, damage, content) in enumerate(damaged(files, args.files, args.seed)):
            name = path.name.removeprefix("good")
            target = folder / f"bad{name}"
            target.write_bytes(content)
            said = reader.open(target)
            kind = (
                "same"
                if said == right[path]
                else next((kind for kind in KINDS if said.startswith(kind)), "other numbers")
            )
            counts[name][kind] += 1
            if kind.isupper():
                bad += 1
                print(f"no. {k} of seed {args.seed}, {damage} in {name}: {said}")
        reader.stop()
    print(f"{'format':15s}" + "".join(f"{kind:>15s}" for kind in KINDS))
    for name, found in counts.items():
        print(f"{name:15s}" + "".join(f"{found[kind]:15d}" for kind in KINDS))
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
