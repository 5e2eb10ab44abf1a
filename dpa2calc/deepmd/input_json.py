"""deepmd-kit's training input (`input.json`) -> model configuration, training options, data, ignored keys."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dpa2calc.errors import CheckpointError, ConfigError
from dpa2calc.model.config import HeadConfig, ModelConfig, NeighborRule

from .branch import Tree
from .input_refused import check_branches, refuse, refuse_unknown
from .input_schedule import in_steps, learning_rate, loss_options, prefactors_alone
from .model_section import model_config
from .option_reader import Options, Reading
from .read import ours


@dataclass(frozen=True, kw_only=True)
class HeadData:
    """What one head is trained on.

    Attributes:
        training, validation: folders of systems, as written in the file.
        weight: relative probability of drawing this head (multi-task), else 1.
    """

    training: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DeepmdInput:
    """What an `input.json` asks for, in this package's words.

    Attributes:
        config: model with one head a branch.
        training: options by the names of `dpa2calc.training.TrainConfig`; only those the file sets.
        data: per head, where its data lie.
        ignored: keys of the file that play no part here, with their place ("training.disp_file"); after a
            colon what is done instead.
    """

    config: ModelConfig
    training: Tree = field(hash=False)
    data: dict[str, HeadData] = field(hash=False)
    ignored: tuple[str, ...]


def read_input(path: str | Path, *, neighbor_rule: NeighborRule = "all") -> DeepmdInput:
    """Read deepmd-kit's `input.json` (or `.yaml`) for DPA-2, DPA-1 and DeepPot-SE energy models.

    Args:
        neighbor_rule: "all" is this package's default for models made here; "nearest" cuts the
            neighbour list at nsel as deepmd-kit does.

    Raises:
        ConfigError: not readable, or a model that is not supported; the message names the key.

    Example:
        >>> from dpa2calc.deepmd.input_json import read_input
        >>> given = read_input("input.json")  # doctest: +SKIP
        >>> given.config.descriptor.cutoff, given.training["learning_rate"]  # doctest: +SKIP
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise ConfigError(f"there is no input file {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix in (".yaml", ".yml"):
            import yaml

            content = yaml.safe_load(text)
        else:
            content = json.loads(text)
    except Exception as error:  # the errors of YAML have no common standard base
        kind = "YAML" if path.suffix in (".yaml", ".yml") else "JSON"
        raise ConfigError(f"{path} is no {kind}: {error}") from error
    if not isinstance(content, Mapping) or "model" not in content:
        raise ConfigError(f"{path} has no 'model' section, so it is no input of deepmd-kit")
    try:
        with ours(path):
            return parse_input(dict(content), neighbor_rule=neighbor_rule)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error


def parse_input(content: Tree, *, neighbor_rule: NeighborRule = "all") -> DeepmdInput:
    """The same from a dictionary; see `read_input`."""
    top = Options(content, "input")
    model = Options(top.need("model"), "model").values
    several = "model_dict" in model
    config, ignored = _heads_config(model) if several else _head_config(model, "Default")
    names = [head.name for head in config.heads]
    training_section = Options(top.get("training", {}), "training")
    refuse(training_section)
    refuse(Options(top.values.get("nvnmd") or {}, "nvnmd"))
    check_branches(top, training_section, names if several else None)
    losses = [top.get("loss_dict", {}).get(name, {}) for name in names] if several else [top.get("loss", {})]
    data, batches, data_notes = _data(training_section, names)
    moved = {"type" if key == "opt_type" else key: training_section.get(key) for key in _OPTIMIZER_BEFORE_3_2}
    optimizer = top.get("optimizer", {})
    if isinstance(optimizer, Mapping):
        optimizer = {**optimizer, **{key: value for key, value in moved.items() if value is not None}}
    read = [_section(loss, "loss", loss_options) for loss in losses]
    for name, one in zip(names, read):
        if one[0] != read[0][0]:
            raise ConfigError(
                f"loss_dict.{name} is another loss than that of the first head; here all heads share one: "
                "make them the same (a head whose data have no virials learns none)"
            )
    read += [
        _section(top.get("learning_rate", {}), "learning_rate", learning_rate),
        _section(optimizer, "optimizer", _optimizer),
    ]
    for loss in losses:
        ignored += prefactors_alone(loss)
    training: Tree = {"dtype": _dtype(model), **_PLAIN, **batches}
    if training_section.read(bool, "change_bias_after_training", False):
        del training["final_bias_frames"]  # ours then, which is robust and takes frames of every set
    for options, unused in read:
        training |= options
        ignored += unused
    training = in_steps(training | _training(training_section))
    if "huber_delta" in training and "gradient_clip" in training:
        training["gradient_clip"] *= 2.0  # small errors count as error^2 here, as error^2 / 2 there
    ignored += data_notes + training_section.unused()
    ignored += [key.removeprefix("input.") for key in top.unused()]
    return DeepmdInput(
        config=dataclasses.replace(config, neighbor_rule=neighbor_rule),
        training=training,
        data=data,
        ignored=tuple(dict.fromkeys(ignored)),
    )


def _section(values: object, where: str, read: Callable[[Options], Tree]) -> tuple[Tree, list[str]]:
    """The options of a section in our words, and the keys of it that play no part."""
    options = Options(values, where)
    refuse(options)
    found, unused = read(options), options.unused()
    refuse_unknown(unused)
    return found, unused


def _head_config(section: Tree, name: str) -> tuple[ModelConfig, list[str]]:
    if section.get("use_srtab"):
        raise ConfigError("training with a pair table (use_srtab) is not supported; train without it")
    values = {k: value for k, value in section.items() if not k.startswith("_") and value is not None}
    parts = (values.get(key) for key in ("descriptor", "fitting_net"))
    for part, where in zip((values, *parts), ("model", "descriptor", "fitting_net")):
        if isinstance(part, Mapping):
            refuse(Options(part, where))
    try:
        config, unknown = model_config(values, name=name, reading=Reading(missing="default"))
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
    refuse_unknown(unknown)
    descriptor, fitting = values["descriptor"], values["fitting_net"]
    if "precision" in fitting and _precision(fitting) != _precision(descriptor):
        unknown.append("fitting_net.precision: all networks have that of the descriptor")
    return config, unknown


def _heads_config(model: Tree) -> tuple[ModelConfig, list[str]]:
    """A multi-task model: sections that name entries of `shared_dict`, one branch a head."""
    shared = model.get("shared_dict", {})
    heads: list[HeadConfig] = []
    notes: list[str] = []
    first: ModelConfig | None = None
    sources: set[str] = set()
    for name, section in model["model_dict"].items():
        section = dict(section)
        descriptor = section.get("descriptor")
        sources.add(descriptor if isinstance(descriptor, str) else json.dumps(descriptor, sort_keys=True))
        if isinstance(section.get("fitting_net"), str):
            shared_net = f"shared_dict.{section['fitting_net']}"
            notes.append(f"{shared_net}: each head gets a fitting net of its own with these options")
        for key in ("type_map", "descriptor", "fitting_net"):
            if isinstance(section.get(key), str):
                section[key] = _shared(shared, section[key], f"model_dict.{name}.{key}")
        config, unknown = _head_config(section, name)
        notes += unknown
        head = config.heads[0]
        if head.fitting.dim_case_embd:
            # A constant input of a net that no other head uses is the same as its bias.
            head = dataclasses.replace(head, fitting=dataclasses.replace(head.fitting, dim_case_embd=0))
            notes.append("fitting_net.dim_case_embd")
        heads.append(head)
        first = first or config
        if config.descriptor != first.descriptor or config.type_map != first.type_map:
            raise ConfigError(f"the branch {name} has another descriptor or type_map than the first branch")
    if first is None:
        raise ConfigError("model.model_dict is empty")
    if len(sources) > 1:
        raise ConfigError(
            f"the branches take their descriptors from {len(sources)} places; here all heads share one: "
            "name the same entry of shared_dict in each"
        )
    return first.with_heads(tuple(heads)), notes


def _shared(shared: Tree, reference: str, where: str) -> object:
    name, _, level = reference.partition(":")
    if name not in shared:
        raise ConfigError(
            f"{where} names {reference!r}, but shared_dict has {', '.join(shared) or 'nothing'}"
        )
    if level not in ("", "0"):
        raise ConfigError(f"{where} = {reference!r}: sharing a part of a section is not supported")
    return shared[name]


def _dtype(model: Tree) -> str:
    """Precision of the networks: that of the descriptor."""
    descriptor = model.get("descriptor", {})
    if "model_dict" in model:
        branch: Tree = next(iter(model["model_dict"].values()), {})
        descriptor = branch.get("descriptor", {})
        if isinstance(descriptor, str):
            descriptor = model.get("shared_dict", {}).get(descriptor.partition(":")[0], {})
    return _precision(descriptor)


def _precision(section: Tree) -> str:
    """deepmd-kit's default is float64."""
    return "float32" if section.get("precision") in ("float32", "single") else "float64"


# What deepmd-kit does unless told, where our own trainer does more.
_PLAIN: Tree = {
    "gradient_clip_relative": None,
    "ema_decay": 0.0,
    "final_bias_frames": 0,
    "keep": "last",
}


# How often each of several systems is drawn; of one they say nothing.
_AMONG_SYSTEMS = ("auto_prob", "auto_prob_style", "sys_probs", "sys_weights")
# Options of the optimiser that stood in `training` up to version 3.1.
_OPTIMIZER_BEFORE_3_2 = ("opt_type", "adam_beta1", "adam_beta2", "weight_decay")


def _optimizer(o: Options) -> Tree:
    kind = o.kind("adam", {"adam": "adam", "adamw": "adamw"})
    names = {"adam_beta1": "beta1", "adam_beta2": "beta2", "weight_decay": "weight_decay"}
    decay = {"weight_decay": 0.001} if kind == "adamw" else {}
    return decay | o.present(names) | {"optimizer": kind}


def _training(o: Options) -> Tree:
    names = {
        **dict.fromkeys(("numb_steps", "numb_step", "num_steps", "num_step", "stop_batch"), "steps"),
        "disp_freq": "log_every",
        "save_freq": "checkpoint_every",
        "gradient_max_norm": "gradient_clip",
        "seed": "seed",
    }
    out = o.present(names)
    if out.get("gradient_clip") == 0:  # no clipping
        del out["gradient_clip"]
    passes = ("numb_epoch", "num_epoch", "num_epochs", "numb_epochs", "num_epoch_dict")
    epochs = [key for key in passes if o.get(key)]
    if epochs:
        raise ConfigError(
            f"training.{epochs[0]} = {o.get(epochs[0])}: the length of a run in passes over the data is not "
            "supported; write training.numb_steps in its place"
        )
    if o.get("enable_ema", False):
        out["ema_decay"] = o.read(float, "ema_decay", 0.999)
    return out


def _data(o: Options, names: list[str]) -> tuple[dict[str, HeadData], dict[str, int], list[str]]:
    """Systems of each head, `batch_atoms` where a batch is given by atoms, and what is ignored."""
    by_head, given = o.get("data_dict"), o.get("model_prob", {})
    if by_head is None:
        sections = {key: o.get(key) for key in ("training_data", "validation_data")}
        by_head = {names[0]: {key: value for key, value in sections.items() if value}}
    weights = Options(given, "training.model_prob")
    data, ignored, batches = {}, [], []
    for name, section in by_head.items():
        found: list[tuple[str, ...]] = []
        for key in ("training_data", "validation_data"):
            options = Options(section.get(key) or {}, key)
            systems = options.get("systems", ())
            if isinstance(systems, str) and key == "training_data" and len(names) > 1 and not given:
                raise ConfigError(
                    f"{key}.systems = {systems!r} leaves the number of systems open, by which deepmd-kit "
                    "draws heads where nothing else is given; write training.model_prob"
                )
            found.append((systems,) if isinstance(systems, str) else tuple(systems))
            if key == "training_data":
                if not isinstance(systems, str) and len(systems) == 1:
                    options.values = {k: v for k, v in options.values.items() if k not in _AMONG_SYSTEMS}
                refuse(options)
                batches += _batch_atoms(options)
            ignored += options.unused()
        training, validation = found
        # deepmd-kit's default is the number of systems
        weight = weights.read(float, name, float(len(training) or 1) if len(names) > 1 else 1.0)
        data[name] = HeadData(training=training, validation=validation, weight=weight)
    return data, {"batch_atoms": max(batches)} if batches else {}, ignored


def _batch_atoms(o: Options) -> list[int]:
    """Atoms of a batch where they are given ("auto", "auto:N", "max:N"); numbers of frames are not read."""
    kind, _, atoms = str(o.values.get("batch_size", "")).partition(":")
    if kind == "filter":
        raise ConfigError(
            f"{o.where}.batch_size = '{kind}:{atoms}' is not supported: leave frames with more atoms "
            f"out of the data, and write 'max:{atoms}'"
        )
    if kind not in ("auto", "max"):
        return []
    o.get("batch_size")
    if atoms and not atoms.isdigit():
        raise ConfigError(f"{o.where}.batch_size = '{kind}:{atoms}' is not allowed; allowed: '{kind}:N'")
    return [int(atoms or 32)]  # deepmd-kit's "auto" is "auto:32"
