"""The small nodes of the backend-neutral tree: layers, networks, collections, environment matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dpa2calc.model.config import ModelConfig

Tree = dict[str, Any]


@dataclass(frozen=True)
class Nodes:
    """Builds nodes of one head's model from its arrays (those of `branch_arrays`)."""

    config: ModelConfig
    head: int
    arrays: dict[str, Tensor]
    precision: str

    def embeddings(self, at: str, activation: str, resnet_dt: bool, *, ndim: int = 0) -> Tree:
        """The collection of all networks below the name `at`."""
        nets: list[Tree] = []
        while f"{at}.networks.{len(nets)}.layers.0.matrix" in self.arrays:
            nets.append(self.network(f"{at}.networks.{len(nets)}", activation, resnet_dt))
        return self.collection(nets, "embedding_network", ndim=ndim)

    def collection(self, nets: list[Tree], kind: str, *, ndim: int) -> Tree:
        """A collection of networks."""
        return {
            "@class": "NetworkCollection",
            "@version": 1,
            "ndim": ndim,
            "ntypes": self.config.n_types,
            "network_type": kind,
            "networks": nets,
        }

    def network(self, at: str, activation: str, resnet_dt: bool, *, out_dim: int | None = None) -> Tree:
        """An embedding network, or a fitting network when it has an `out_dim`."""
        layers: list[Tree] = []
        while f"{at}.layers.{len(layers)}.matrix" in self.arrays:
            layers.append(self.layer(f"{at}.layers.{len(layers)}", activation, resnet=True))
        widths = [int(layer["@variables"]["w"].shape[1]) for layer in layers]
        node: Tree = {
            "@class": "EmbeddingNetwork",
            "@version": 2,
            "in_dim": int(layers[0]["@variables"]["w"].shape[0]),
            "neuron": widths,
            "activation_function": activation,
            "resnet_dt": resnet_dt,
            "precision": self.precision,
            "layers": layers,
        }
        if out_dim is None:
            return node | {"bias": layers[0]["bias"]}
        layers[-1] |= {"activation_function": "none", "resnet": False}
        fitting = {"@class": "FittingNetwork", "@version": 1, "out_dim": out_dim, "bias_out": True}
        return node | fitting | {"neuron": widths[:-1]}

    def layer(self, at: str, activation: str = "none", *, resnet: bool = False) -> Tree:
        """One dense layer."""
        bias, idt = self.arrays.get(f"{at}.bias"), self.arrays.get(f"{at}.idt")
        return {
            "@class": "Layer",
            "@version": 2,
            "bias": bias is not None,
            "use_timestep": idt is not None,
            "activation_function": activation,
            "resnet": resnet,
            "precision": self.precision,
            "trainable": True,
            "@variables": {"w": self.arrays[f"{at}.matrix"], "b": bias, "idt": idt},
        }

    def layer_norm(self, at: str, eps: float, trainable: bool) -> Tree:
        """A layer normalisation."""
        return {
            "@class": "LayerNorm",
            "@version": 1,
            "eps": eps,
            "trainable": trainable,
            "precision": self.precision,
            "@variables": {"w": self.arrays[f"{at}.matrix"], "b": self.arrays[f"{at}.bias"]},
        }

    def env_mat(self, cutoff: float, smooth: float) -> Tree:
        """Cutoffs of an environment matrix."""
        protection = self.config.descriptor.env_protection
        return {"rcut": cutoff, "rcut_smth": smooth, "protection": protection, "use_exp_switch": False}

    def statistics(self, at: str) -> Tree:
        """Mean and deviation of an environment matrix."""
        return {"davg": self.arrays[f"{at}.mean"], "dstd": self.arrays[f"{at}.stddev"]}

    def list_of(self, at: str) -> list[Tensor]:
        """The arrays `at`.0, `at`.1, ..."""
        found: list[Tensor] = []
        while f"{at}.{len(found)}" in self.arrays:
            found.append(self.arrays[f"{at}.{len(found)}"])
        return found
