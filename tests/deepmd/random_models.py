"""Runs in deepmd-kit's own environment: models with random options and weights, and what they say.

Usage: python random_models.py FOLDER FIRST_SEED NUMBER

Leaves FOLDER/SEED.pt, a checkpoint as training writes it, and FOLDER/SEED.npz with structures, energies,
forces and virials. Options that deepmd-kit itself refuses, or cannot evaluate, leave no .npz.
"""

import copy
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

ACTIVATIONS = (
    "tanh", "gelu", "gelu_tf", "relu", "relu6", "softplus", "sigmoid", "linear", "silu", "silut",
    "silut:3.0", "custom_silu:10.0",
)  # fmt: skip
NEURONS = ([6, 12, 24], [8, 8], [5, 5, 10])


class Options:
    """Random options; half of the models have room for all neighbours of any structure."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.roomy = self.coin()

    def coin(self) -> bool:
        return self.random.random() < 0.5

    def one_of(self, *values: Any) -> Any:
        return self.random.choice(values)

    def between(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def coins(self, *names: str) -> dict[str, bool]:
        return {name: self.coin() for name in names}

    def sel(self, *values: int) -> int:
        return 400 if self.roomy else int(self.one_of(*values))

    def common(self) -> dict[str, Any]:
        """What every descriptor has."""
        return {
            "exclude_types": self.one_of([], [], [[0, 1]], [[2, 2], [0, 3]]),
            "env_protection": self.one_of(0.0, 0.0, 1e-6),
            "precision": "float64",
        }

    def block(self) -> dict[str, Any]:
        """What every embedding of the environment matrix has."""
        return {
            "rcut_smth": self.between(0.3, 3.0),
            "neuron": list(self.one_of(*NEURONS)),
            "axis_neuron": self.one_of(2, 4),
            "activation_function": self.one_of(*ACTIVATIONS),
            **self.coins("set_davg_zero", "resnet_dt", "type_one_side"),
        }

    def repinit(self) -> dict[str, Any]:
        options = {
            "rcut": self.between(4.5, 6.5),
            "nsel": 20 + self.sel(20, 40),
            "tebd_dim": self.one_of(4, 6, 8),
        }
        options |= self.block() | {
            "tebd_input_mode": self.one_of("concat", "strip"),
            "use_three_body": self.coin(),
        }
        if options["use_three_body"]:
            options |= {
                "three_body_neuron": self.one_of([2, 4], [4, 4]),
                "three_body_sel": self.sel(10),
                "three_body_rcut": self.between(2.5, 4.0),
                "three_body_rcut_smth": self.between(0.3, 2.0),
            }
        return options

    def repformer(self) -> dict[str, Any]:
        switches = self.coins(
            "direct_dist", "update_g1_has_conv", "update_g1_has_drrd", "update_g1_has_grrg",
            "update_g1_has_attn", "update_g2_has_g1g1", "update_g2_has_attn", "update_h2", "attn2_has_gate",
            "set_davg_zero", "trainable_ln", "use_sqrt_nnei", "g1_out_conv", "g1_out_mlp",
        )  # fmt: skip
        return switches | {
            "rcut": self.between(2.5, 4.0),
            "rcut_smth": self.between(0.3, 2.0),
            "nsel": self.sel(10),
            "nlayers": self.one_of(1, 2, 3),
            "g1_dim": self.one_of(6, 8, 12),
            "g2_dim": self.one_of(4, 5, 8),
            "axis_neuron": self.one_of(2, 3),
            "attn1_hidden": self.one_of(4, 6),
            "attn1_nhead": self.one_of(1, 2),
            "attn2_hidden": self.one_of(4, 6),
            "attn2_nhead": self.one_of(1, 2),
            "activation_function": self.one_of(*ACTIVATIONS),
            "update_style": self.one_of("res_avg", "res_incr", "res_residual"),
            "update_residual": self.between(0.01, 0.3),
            "update_residual_init": self.one_of("norm", "const"),
        }

    def descriptor(self) -> dict[str, Any]:
        kind = self.one_of("dpa2", "dpa2", "se_atten", "se_atten_v2", "se_e2_a")
        if kind == "dpa2":
            switches = self.coins(
                "concat_output_tebd", "smooth", "add_tebd_to_repinit_out", "use_econf_tebd", "use_tebd_bias"
            )
            parts = {"repinit": self.repinit(), "repformer": self.repformer()}
            return {"type": kind} | self.common() | switches | parts
        options = {"type": kind, "rcut": self.between(4.0, 6.5)} | self.common() | self.block()
        if kind == "se_e2_a":
            return options | {"sel": [self.sel(10, 25) for _ in range(6)]}
        options |= {
            "sel": self.sel(10, 30, 80),
            "attn": self.one_of(6, 8, 16),
            "attn_layer": self.one_of(0, 0, 1, 2),
            "attn_mask": False,
            "tebd_dim": self.one_of(4, 8),
            "scaling_factor": self.one_of(1.0, 0.5),
            **self.coins("attn_dotr", "normalize", "concat_output_tebd", "trainable_ln", "use_econf_tebd"),
        }
        if self.coin():
            options["temperature"] = self.between(0.5, 3.0)
        if kind == "se_atten":
            options["tebd_input_mode"] = self.one_of("concat", "strip")
            strip = options["tebd_input_mode"] == "strip" and options["attn_layer"] > 0
            options["smooth_type_embedding"] = strip or self.coin()
        return options

    def model(self) -> dict[str, Any]:
        fitting = {
            "neuron": self.one_of([10, 10], [8, 12], [16], [10, 10, 10]),
            "resnet_dt": self.coin(),
            "activation_function": self.one_of(*ACTIVATIONS),
            "precision": "float64",
        }
        if self.coin():
            fitting |= {"numb_fparam": 2, "default_fparam": [0.3, self.between(-1.0, 1.0)]}
        if self.one_of(True, False, False):
            fitting["atom_ener"] = [self.one_of(None, self.between(-3.0, 3.0)) for _ in range(6)]
        if self.one_of(True, False, False):
            fitting["dim_case_embd"] = 3
        types = self.random.sample(["O", "H", "Cu", "C", "Li", "S"], 6)
        model = {"type_map": types, "descriptor": self.descriptor(), "fitting_net": fitting}
        if self.one_of(True, False, False, False):
            model["atom_exclude_types"] = [1]
        if self.one_of(True, False, False, False):
            model["pair_exclude_types"] = [[0, 2]]
        return model


def shake(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Noise on every weight; statistics differ between types but, as in any training, not between slots."""

    def noise(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    for name, value in model.state_dict().items():
        last = name.rsplit(".", 1)[-1]
        if not value.is_floating_point() or not value.numel() or "rcut" in name or "min_nbor" in name:
            continue
        if last == "mean" or "davg" in last:
            value[..., :1] = 0.05 * noise(len(value), 1, 1)
        elif last == "stddev" or "dstd" in last:
            value[..., :1] = 0.3 + 0.3 * noise(len(value), 1, 1)
            if value.shape[-1] == 4:
                value[..., 1:] = 0.3 + 0.3 * noise(len(value), 1, 1)
        elif "econf" not in last and "out_std" not in last:
            value.add_(0.3 * (noise(*value.shape) - 0.5))


def structures(seed: int) -> list[tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
    """Positions, cell and types of a triclinic crystal, a molecule, and a cell smaller than the cutoffs."""
    draw = np.random.default_rng(seed)
    cells = (
        [[7.0, 0, 0], [1.0, 6.5, 0], [-0.5, 0.7, 7.5]],
        None,
        [[3.1, 0, 0], [0.4, 2.9, 0], [0.1, -0.3, 3.3]],
    )
    found = []
    for n_atoms, cell in zip((14, 9, 3), cells):
        box = np.array(cell) if cell is not None else None
        positions: list[np.ndarray] = []
        while len(positions) < n_atoms:
            new = draw.random(3) @ (box if box is not None else 6.0 * np.eye(3))
            if all(np.linalg.norm(new - old) > 0.9 for old in positions):
                positions.append(new)
        found.append((np.array(positions), box, draw.integers(0, 6, n_atoms)))
    return found


def make(folder: Path, seed: int) -> None:
    """One model and its numbers, but for structures where equally near neighbours would be cut."""
    from deepmd.infer import DeepPot
    from deepmd.pt.model.model import get_model
    from deepmd.pt.train.wrapper import ModelWrapper
    from deepmd.utils.argcheck import normalize

    options = Options(seed)
    run = {"numb_steps": 1, "training_data": {"systems": ["none"]}}
    rate = {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5, "decay_steps": 1}
    whole = {"model": options.model(), "learning_rate": rate, "loss": {"type": "ener"}, "training": run}
    params = normalize(whole)["model"]  # as in every checkpoint that training leaves
    torch.manual_seed(seed)
    model = get_model(copy.deepcopy(params))
    with torch.no_grad():
        shake(model, torch.Generator().manual_seed(seed))
    path = folder / f"{seed}.pt"
    torch.save({"model": ModelWrapper(model, model_params=params).state_dict()}, path)
    potential = DeepPot(str(path))
    arrays: dict[str, Any] = {}
    for number, (positions, cell, types) in enumerate(structures(seed)):
        if number == 2 and not options.roomy:
            continue
        box = None if cell is None else cell.reshape(1, 9)
        energy, forces, virial = potential.eval(positions.reshape(1, -1), box, types.tolist())[:3]
        values = {
            "symbols": np.array([params["type_map"][t] for t in types]),
            "positions": positions,
            "cell": np.zeros((3, 3)) if cell is None else cell,
            "energy": energy[0, 0],
            "forces": forces[0],
            "virial": virial[0].reshape(3, 3),
        }
        arrays |= {f"{number}/{name}": value for name, value in values.items()}
    np.savez(folder / f"{seed}.npz", **arrays)


def main() -> None:
    """A model for every seed; what deepmd-kit refuses is printed."""
    folder, first, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for seed in range(first, first + number):
        try:
            make(folder, seed)
        except Exception as error:  # options that do not go together
            sys.stdout.write(f"{seed}: {type(error).__name__}: {str(error)[-200:]}\n")


main()
