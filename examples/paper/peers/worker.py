"""Train one model on a file of frames for so many CPU minutes, and predict the frames of another.

    python worker.py job.json     # {"model", "mode", "train", "test", "minutes", "seed", "steps", "output"}

Started by finetune_peers.py and single_task.py, with the interpreter that has the model's package. `mode` is
"as it is", "fine-tuned" or "from scratch". Frames hold REF_energy and REF_forces. Peers learn by one loop:
Adam, a batch of `batch` frames, a cosine of the learning rate that ends with the time, an average of the
weights, and MACE's two stages of loss weights. For every model the elements' energies are fitted to the
training frames before and after.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

Frames = list[Any]  # of ase.Atoms
Predicted = tuple[np.ndarray, list[np.ndarray]]  # energies (m,) eV, forces (n, 3) eV/Å of each frame
FORCE_WEIGHT, ENERGY_WEIGHT, LATE_ENERGY_WEIGHT, LATE = 100.0, 1.0, 1000.0, 0.75


def main() -> None:
    """Do the job and write its record."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # e3nn's constants and the peers' checkpoints
    import torch

    torch.manual_seed(job["seed"])
    train, test = (ase.io.read(job[name], ":", format="extxyz") for name in ("train", "test"))
    work = own if job["model"] == "dpa2calc" else peer
    (energies, forces), facts = work(job, train, test)
    differences = np.array([e - f.info["REF_energy"] for e, f in zip(energies, test)])
    per_atom = differences / np.array([len(f) for f in test])
    components = np.concatenate([(f - a.arrays["REF_forces"]).ravel() for f, a in zip(forces, test)])
    record = {
        "energy_rmse": 1e3 * float(np.sqrt(np.mean(per_atom**2))),
        "energy_mae": 1e3 * float(np.mean(np.abs(per_atom))),
        "force_rmse": 1e3 * float(np.sqrt(np.mean(components**2))),
        "force_mae": 1e3 * float(np.mean(np.abs(components))),
        **facts,
        "cpu_seconds": time.process_time(),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    output = Path(job["output"])
    output.with_suffix(".part").write_text(json.dumps(record, indent=1), encoding="utf-8")
    os.replace(output.with_suffix(".part"), output)


# --- this package -------------------------------------------------------------------------------


def own(job: dict[str, Any], train: Frames, test: Frames) -> tuple[Predicted, dict[str, Any]]:
    """Fine-tune a model of this package, or train its architecture from scratch."""
    import dataclasses

    from dpa2calc.store.load import load_model
    from dpa2calc.training import Dataset, FinetuneConfig, TrainConfig, finetune, model_for
    from dpa2calc.training import train as train_new
    from dpa2calc.training.data.frame import LabelKeys
    from dpa2calc.training.fit.predict import predict_potential

    keys = LabelKeys(energy="REF_energy", forces="REF_forces")
    known, asked = (Dataset.from_atoms(f, name="new", keys=keys) for f in (train, test))
    options: dict[str, Any] = {"minutes": job["minutes"], "clock": "cpu", "seed": job["seed"]}
    folder = Path(job["output"]).with_suffix("")
    start = load_model(job["start"])
    if job["mode"] == "fine-tuned":
        result = finetune(start, known, FinetuneConfig(**options), output=folder, progress=False)
    else:
        config = model_for("small", {"new": known})
        head = dataclasses.replace(config.heads[0], fitting=start.config.heads[0].fitting)
        config = dataclasses.replace(config, descriptor=start.config.descriptor).with_heads((head,))
        result = train_new(config, known, TrainConfig(**options), output=folder, progress=False)
    made = predict_potential(result.potential, asked)
    facts = {"steps": result.steps, "parameters": sum(p.numel() for p in result.potential.parameters())}
    return (np.array([p.energy for p in made]), [np.asarray(p.forces) for p in made]), facts


# --- peers --------------------------------------------------------------------------------------


def peer(job: dict[str, Any], train: Frames, test: Frames) -> tuple[Predicted, dict[str, Any]]:
    """One of the peers, by its class below."""
    model = PEERS[job["model"]](train, scratch=job["mode"] == "from scratch")
    network = model.network
    steps = 0
    model.shift = element_energies(train, predict(model, train)[0])
    if job["mode"] != "as it is":
        steps = learn(model, train, minutes=job["minutes"], seed=job["seed"])
        model.shift += element_energies(train, predict(model, train)[0])
    facts = {"steps": steps, "parameters": sum(p.numel() for p in network.parameters())}
    return predict(model, test), facts


def element_energies(frames: Frames, predicted: np.ndarray) -> np.ndarray:
    """Energy of each element (119,) that makes up best for label less prediction."""
    counts = np.array([np.bincount(f.numbers, minlength=119) for f in frames], dtype=float)
    missing = np.array([f.info["REF_energy"] for f in frames]) - predicted
    sizes = counts.sum(axis=1)
    return np.linalg.lstsq(counts / sizes[:, None], missing / sizes, rcond=1e-8)[0]


def predict(model: Any, frames: Frames) -> Predicted:
    """Frame by frame."""
    model.network.eval()
    energies, forces = [], []
    for frame in frames:
        energy, force = model.compute([frame])
        energies.append(float(energy.detach()[0]) + float(model.shift[frame.numbers].sum()))
        forces.append(force.detach().double().numpy())
    return np.array(energies), forces


def learn(model: Any, frames: Frames, *, minutes: float, seed: int) -> int:
    """Train in place until the process has spent the time; returns the number of steps."""
    import torch

    model.network.train()
    weights = [p for p in model.network.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in weights]
    optimizer = torch.optim.Adam(weights, lr=model.rate, amsgrad=True)
    rng, started, steps = np.random.default_rng(seed), time.process_time(), 0
    order: list[int] = []
    while (progress := (time.process_time() - started) / (60.0 * minutes)) < 1.0:
        if not order:
            order = rng.permutation(len(frames)).tolist()
        batch = [frames[order.pop()] for _ in range(min(model.batch, len(order)))]
        for group in optimizer.param_groups:
            group["lr"] = model.rate * max(0.5 * (1.0 + math.cos(math.pi * progress)), 0.01)
        sizes = torch.tensor([len(f) for f in batch])
        labels = [f.info["REF_energy"] - model.shift[f.numbers].sum() for f in batch]
        energies, forces = model.compute(batch)
        target = torch.from_numpy(np.concatenate([f.arrays["REF_forces"] for f in batch])).to(forces)
        d_energy = (energies - torch.tensor(labels).to(energies)) / sizes
        weight = ENERGY_WEIGHT if progress < LATE else LATE_ENERGY_WEIGHT
        loss = weight * (d_energy**2).mean() + FORCE_WEIGHT * ((forces - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 10.0)
        optimizer.step()
        steps += 1
        decay = min(0.99, (1.0 + steps) / (10.0 + steps))
        for mean, p in zip(average, weights):
            mean.lerp_(p.detach(), 1.0 - decay)
    for mean, p in zip(average, weights):
        p.data.copy_(mean)
    return steps


class Kept:
    """What is made of a frame before the network sees it, kept by frame."""

    def __init__(self) -> None:
        self.known: dict[int, Any] = {}

    def of(self, frame: Any, make: Any) -> Any:
        """Made at the first call."""
        if id(frame) not in self.known:
            self.known[id(frame)] = make(frame)
        return self.known[id(frame)]


class Mace:
    """MACE from scratch, small: 64 scalar channels, two layers, 5 Å."""

    rate, batch, cutoff = 0.01, 2, 5.0

    def __init__(self, train: Frames, *, scratch: bool):
        import torch
        from e3nn import o3
        from mace import data, modules, tools

        assert scratch, "MACE's foundation models are not in its package"
        self.kept, self.shift = Kept(), np.zeros(119)
        self.config, self.atomic_data, self.table = data, data.AtomicData, None
        numbers = sorted({int(z) for f in train for z in f.numbers})
        self.table = tools.AtomicNumberTable(numbers)
        inputs = [self.kept.of(f, self.input) for f in train]
        neighbours = sum(i.edge_index.shape[1] for i in inputs) / sum(len(f) for f in train)
        forces = np.concatenate([f.arrays["REF_forces"] for f in train])
        self.network = modules.ScaleShiftMACE(
            r_max=self.cutoff, num_bessel=8, num_polynomial_cutoff=5, max_ell=3, num_interactions=2,
            interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            num_elements=len(numbers), hidden_irreps=o3.Irreps("64x0e"), MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros(len(numbers)), avg_num_neighbors=neighbours, atomic_numbers=numbers,
            correlation=3, gate=torch.nn.functional.silu, atomic_inter_scale=float(forces.std()),
            atomic_inter_shift=0.0,
        ).float()  # fmt: skip

    def input(self, frame: Any) -> Any:
        """MACE's graph of a frame."""
        made = self.atomic_data.from_config(
            self.config.config_from_atoms(frame), z_table=self.table, cutoff=self.cutoff
        )
        for name, value in made:
            if hasattr(value, "is_floating_point") and value.is_floating_point():
                made[name] = value.float()
        return made

    def compute(self, frames: Frames) -> Any:
        """Energies and forces as tensors that can be differentiated."""
        from mace.tools.torch_geometric.batch import Batch

        batch = Batch.from_data_list([self.kept.of(f, self.input) for f in frames]).to_dict()
        out = self.network(batch, training=self.network.training)
        return out["energy"], out["forces"]


class SevenNet:
    """SevenNet-0 (11 July 2024), whose weights are in its package."""

    rate, batch = 1e-3, 2

    def __init__(self, train: Frames, *, scratch: bool):
        from sevenn.util import model_from_checkpoint, pretrained_name_to_path

        assert not scratch
        self.kept, self.shift = Kept(), np.zeros(119)
        self.network, config = model_from_checkpoint(pretrained_name_to_path("7net-0"))
        self.network.set_is_batch_data(True)
        self.cutoff = config["cutoff"]

    def input(self, frame: Any) -> Any:
        """SevenNet's graph of a frame."""
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.train.dataload import unlabeled_atoms_to_graph

        return AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(frame, self.cutoff))

    def compute(self, frames: Frames) -> Any:
        """Energies and forces as tensors that can be differentiated."""
        from torch_geometric.data import Batch

        inputs = [self.kept.of(f, self.input).clone() for f in frames]
        out = self.network(Batch.from_data_list(inputs))
        return out["inferred_total_energy"], out["inferred_force"]


class Chgnet:
    """CHGNet 0.3.0, whose weights are in its package; molecules in a box of 12 Å around them."""

    rate, batch = 1e-3, 2

    def __init__(self, train: Frames, *, scratch: bool):
        from chgnet.model import CHGNet

        assert not scratch
        self.kept, self.shift = Kept(), np.zeros(119)
        self.network = CHGNet.load(use_device="cpu", verbose=False)

    def input(self, frame: Any) -> Any:
        """CHGNet's graph of a frame."""
        from pymatgen.io.ase import AseAtomsAdaptor

        atoms = frame.copy()
        if not all(atoms.pbc):
            atoms.center(vacuum=6.0)
            atoms.pbc = True
        return self.network.graph_converter(AseAtomsAdaptor.get_structure(atoms))

    def compute(self, frames: Frames) -> Any:
        """Energies and forces as tensors that can be differentiated."""
        import torch

        out = self.network([self.kept.of(f, self.input) for f in frames], task="ef")
        sizes = torch.tensor([len(f) for f in frames])
        return out["e"] * sizes, torch.cat(list(out["f"]))


class Nequip:
    """NequIP from scratch: two layers of 32 features up to l = 1, 5 Å."""

    rate, batch, cutoff = 0.01, 2, 5.0

    def __init__(self, train: Frames, *, scratch: bool):
        from nequip.model import model_from_config
        from nequip.utils import Config

        assert scratch
        self.kept, self.shift = Kept(), np.zeros(119)
        self.numbers = sorted({int(z) for f in train for z in f.numbers})
        self.place = {z: i for i, z in enumerate(self.numbers)}
        edges = sum(self.kept.of(f, self.input)["edge_index"].shape[1] for f in train)
        self.scale = float(np.concatenate([f.arrays["REF_forces"] for f in train]).std())
        options = {
            "model_builders": ["SimpleIrrepsConfig", "EnergyModel", "ForceOutput"],
            "r_max": self.cutoff, "l_max": 1, "parity": True, "num_features": 32, "num_layers": 2,
            "num_basis": 8, "PolynomialCutoff_p": 6, "invariant_layers": 2, "invariant_neurons": 64,
            "num_types": len(self.numbers), "avg_num_neighbors": edges / sum(len(f) for f in train),
            "chemical_embedding_irreps_out": "32x0e", "model_dtype": "float32",
            "type_names": [str(z) for z in self.numbers],
        }  # fmt: skip
        self.network = model_from_config(Config.from_dict(options), initialize=True)

    def input(self, frame: Any) -> Any:
        """NequIP's graph of a frame."""
        import torch
        from nequip.data import AtomicData

        data = AtomicData.from_points(
            pos=frame.positions, r_max=self.cutoff, cell=frame.cell.array, pbc=frame.pbc
        )
        data["atom_types"] = torch.tensor([[self.place[int(z)]] for z in frame.numbers])
        return data

    def compute(self, frames: Frames) -> Any:
        """Energies and forces as tensors that can be differentiated."""
        from nequip.data import AtomicData
        from nequip.utils.torch_geometric import Batch

        batch = Batch.from_data_list([self.kept.of(f, self.input) for f in frames])
        out = self.network(AtomicData.to_AtomicDataDict(batch))
        return self.scale * out["total_energy"].flatten(), self.scale * out["forces"]


PEERS = {"mace": Mace, "nequip": Nequip, "sevennet": SevenNet, "chgnet": Chgnet}

if __name__ == "__main__":
    main()
