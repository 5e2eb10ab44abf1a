"""Options of an `input.json` that change the model, its data or its loss, and that there is no code for.

Source: `deepmd/utils/argcheck.py` of deepmd-kit 3.2. What only changes files, logs and memory of a run is
left to the reader, which reports it as ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from dpa2calc.errors import ConfigError

from .option_reader import PRECISIONS, Options
from .schema import NEUTRAL

_UNLEARNED = ("h", "ae", "pf", "gf")
_LEARNED = "only energies, forces and virials are learned; leave it out or set it to 0"
_EQUAL_FRAMES = (
    "all frames of a head are drawn with the same probability; leave it out, or make the systems heads of "
    "their own with probabilities in training.model_prob"
)
_FROZEN = (
    "a training from random weights trains all of them; leave it out, or start from a trained model with "
    "`dpa2calc finetune --freeze-descriptor`"
)


def _off(value: object) -> bool:
    return not value


def _among(*values: object) -> Callable[[object], bool]:
    return lambda value: value in values


def _trained(value: object) -> bool:
    return all(value) if isinstance(value, list) else bool(value)


# Of a section: the option, what its values without effect are, and why another one is an error.
_REFUSED: dict[str, tuple[tuple[str, Callable[[object], bool], str], ...]] = {
    "model": (
        (
            "type_embedding",
            _among(),
            "se_e2_a with a type embedding is another model: leave it out, or take the descriptor 'se_atten' "
            "with attn_layer = 0. dpa2 and se_atten have tebd_dim, use_econf_tebd and use_tebd_bias in "
            "model.descriptor for it",
        ),
        ("preset_out_bias", _off, "energies of the elements are fitted to the data; leave it out"),
    ),
    "descriptor": (("trainable", _trained, _FROZEN),),
    "fitting_net": (("trainable", _trained, _FROZEN),),
    "loss": (
        *((f"start_pref_{kind}", _off, _LEARNED) for kind in _UNLEARNED),
        *((f"limit_pref_{kind}", _off, _LEARNED) for kind in _UNLEARNED),
        ("relative_f", _among(), "force errors relative to the forces are not learned; leave it out"),
        ("enable_atom_ener_coeff", _off, "all atomic energies count alike; leave it out"),
        ("loss_func", _among("mse"), "errors are squared: write 'mse', or use_huber = true against outliers"),
        ("f_use_norm", _off, "the three components of a force count on their own; leave it out"),
        (
            "intensive_ener_virial",
            _off,
            "energies and virials count as n (dE/n)^2 of n atoms, deepmd-kit's default; leave it out",
        ),
    ),
    "learning_rate": (
        ("warmup_start_factor", _off, "the learning rate rises from 0; leave it out"),
    ),
    "training": (
        ("acc_freq", _among(1), "leave it out; batches_per_step averages the gradients of several batches"),
        ("mixed_precision", _off, "write the precision of descriptor and fitting_net"),
        ("systems", _off, "write training.training_data.systems, as deepmd-kit 2 and later have it"),
    ),
    "nvnmd": (("enable", _off, "networks for that hardware are others; leave it out"),),
    "training_data": (
        ("auto_prob", _among("prob_sys_size"), _EQUAL_FRAMES),
        ("auto_prob_style", _among("prob_sys_size"), _EQUAL_FRAMES),
        ("sys_probs", _off, _EQUAL_FRAMES),
        ("sys_weights", _off, _EQUAL_FRAMES),
        ("rglob_patterns", _off, "name the systems themselves in `systems`"),
        ("min_pair_dist", _off, "leave such frames out of the data"),
    ),
}  # fmt: skip
# Without effect on a model that is trained from random weights by one process.
_WITHOUT_EFFECT = NEUTRAL | {
    "compress", "finetune_head", "numb_generalized_coord", "use_default_pf", "inference", "scale_by_worker",
    "decay_steps", "smooth",
}  # fmt: skip


def refuse(o: Options) -> None:
    """Raise for a value of a section that this package has no code for.

    Raises:
        ConfigError: it names the option, its value and the way out.
    """
    for key, harmless, why in _REFUSED.get(o.where, ()):
        value = o.values.get(key)
        o.used.add(key)
        if value is not None and not harmless(value):
            raise ConfigError(f"{o.where}.{key} = {value!r} is not supported: {why}")
    precision = o.values.get("precision")
    if precision not in PRECISIONS:
        known = ", ".join(name for name in PRECISIONS if name)
        raise ConfigError(f"{o.where}.precision = {precision!r} is not supported; supported: {known}")


def check_branches(top: Options, training: Options, names: Sequence[str] | None) -> None:
    """Hold the sections by head against the branches of the model.

    Args:
        names: those of a multi-task model; None for a single-task one.

    Raises:
        ConfigError: a branch without data, loss or probability, a name that is no branch, or a section that
            the other kind of file has.
    """
    sections = ((top, "loss_dict", "loss"), (training, "data_dict", "training_data"))
    for section, by_branch, alone in sections:
        wrong, right = (by_branch, alone) if names is None else (alone, by_branch)
        if wrong in section.values and not (names and right in section.values):
            kind = "multi-task file (model.model_dict)" if names is None else "file with one branch"
            raise ConfigError(f"{section.where}.{wrong} belongs to a {kind}; write {right} in its place")
    for section, key in ((top, "loss_dict"), (training, "data_dict"), (training, "model_prob")):
        given = section.get(key)
        if names is None or not isinstance(given, Mapping) or not given:
            continue
        if set(given) != set(names):
            raise ConfigError(
                f"{section.where}.{key} has {', '.join(given)}, but the branches of model.model_dict are "
                f"{', '.join(names)}; give each its own entry, and no other"
            )


def refuse_unknown(keys: Iterable[str]) -> None:
    """Raise for a key of model, loss, optimiser or schedule that is no option; it may be misspelt.

    Args:
        keys: with their places ("descriptor.neurons"); those without effect are passed over.
    """
    unknown = [key for key in keys if key.rpartition(".")[2] not in _WITHOUT_EFFECT]
    if unknown:
        raise ConfigError(
            f"not known, though it may change what is trained: {', '.join(unknown)}; correct or remove it"
        )
