"""Loss and learning rate of an `input.json`, the latter also where it depends on the length of the run."""

from __future__ import annotations

from dpa2calc.errors import ConfigError

from .branch import Tree
from .option_reader import Options

# What deepmd-kit does unless told.
_START, _STOP = 1e-3, 5e-8
# Start and limit that deepmd-kit takes unless told.
_PREFACTORS = {"energy": (0.02, 1.0), "force": (1000.0, 1.0), "virial": (0.0, 0.0)}


def loss_options(o: Options) -> Tree:
    """Prefactors of the loss, and where its errors begin to count linearly."""
    o.kind("ener", {"ener": ""})
    out: Tree = {}
    for word, defaults in _PREFACTORS.items():
        start, limit = (
            o.read(float, f"{end}_pref_{word[0]}", default)
            for end, default in zip(("start", "limit"), defaults)
        )
        # deepmd-kit learns nothing of a kind where either of the two is 0
        learned = bool(start and limit)
        out |= {f"{word}_prefactor_start": start * learned, f"{word}_prefactor_limit": limit * learned}
    if o.get("use_huber", False):
        out["huber_delta"] = o.read(float, "huber_delta", 0.01)
    return out


def prefactors_alone(loss: Tree) -> list[str]:
    """A remark on each prefactor whose partner is 0, with which it counts for nothing."""
    found = []
    for word, defaults in _PREFACTORS.items():
        names = [f"{end}_pref_{word[0]}" for end in ("start", "limit")]
        values = [default if loss.get(n) is None else loss[n] for n, default in zip(names, defaults)]
        for name, value, other, partner in zip(names, values, names[::-1], values[::-1]):
            if value and not partner:
                found.append(f"loss.{name}: without effect beside {other} = 0, as in deepmd-kit")
    return found


def learning_rate(o: Options) -> Tree:
    """Training options, with what `in_steps` has to put into terms of ours.

    Raises:
        ConfigError: another schedule, or an option in two ways.
    """
    for one, other in (("stop_lr", "stop_lr_ratio"), ("warmup_steps", "warmup_ratio")):
        if o.get(one) and o.get(other) is not None:
            raise ConfigError(f"{o.where} has {one} and {other}, which exclude one another; leave one out")
    schedule = o.kind("exp", {"exp": "exponential", "cosine": "cosine"})
    names = {"start_lr": "learning_rate", "stop_lr": "learning_rate_stop", "warmup_steps": "warmup_steps"}
    out: Tree = {"learning_rate": _START, "learning_rate_stop": _STOP, "warmup_steps": 0} | o.present(names)
    if schedule == "exponential":
        out["decay_steps"] = o.get("decay_steps", 5000)
    ratio = o.read(float, "stop_lr_ratio")
    if ratio is not None:
        out["learning_rate_stop"] = o.read(float, "start_lr", _START) * ratio
    lengths = {name: o.read(float, name) for name in ("warmup_ratio", "decay_rate")}
    smooth = schedule == "exponential" and o.read(bool, "smooth", False)
    return (
        out | {"schedule": schedule, "smooth": smooth} | {k: v for k, v in lengths.items() if v is not None}
    )


def in_steps(training: Tree) -> Tree:
    """Training options with `warmup_ratio`, `decay_rate` and `smooth` put in terms of ours.

    deepmd-kit's rate is start decay_rate^floor(step / decay_steps), and not below stop_lr; ours is the same
    with the value that it has after the last step as `learning_rate_stop`.

    Raises:
        ConfigError: the number of steps is not in the file, the rate would be constant at the end, or rises
            for longer than it does here.
    """
    ratio, decay = training.get("warmup_ratio"), training.get("decay_rate")
    out = {
        key: value for key, value in training.items() if key not in ("warmup_ratio", "decay_rate", "smooth")
    }
    smooth = {"decay_steps": 1} if training.get("smooth") else {}
    steps = out.get("steps", 0)
    for name, value in (("warmup_ratio", ratio), ("decay_rate", decay)):
        if value is not None and not steps:
            raise ConfigError(f"learning_rate.{name} = {value:g} needs training.numb_steps; write it")
    if ratio is not None:
        out["warmup_steps"] = int(ratio * steps)
    if steps and out["warmup_steps"] > steps // 5:
        raise ConfigError(
            f"learning_rate: a warm-up of {out['warmup_steps']} of {steps} steps is not supported: at most "
            f"a fifth of the run is; write warmup_steps = {steps // 5} or less"
        )
    if decay is None:
        return out | smooth
    if not 0.0 < decay <= 1.0:
        raise ConfigError(f"learning_rate.decay_rate = {decay:g} is not allowed; allowed: above 0, at most 1")
    interval, start = out["decay_steps"], out["learning_rate"]
    total = steps - out["warmup_steps"]
    last = start * decay ** (total / interval)
    if interval >= total or out["learning_rate_stop"] > last:
        raise ConfigError(
            f"learning_rate.decay_rate = {decay:g} with decay_steps = {interval} of {steps} steps is not "
            "supported: the rate would be constant for some of the run; leave it out and write stop_lr"
        )
    return out | {"learning_rate_stop": last} | smooth
