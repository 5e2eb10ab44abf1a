"""Options of an `input.json` on the learning rate that depend on the length of the run."""

from __future__ import annotations

from dpa2calc.errors import ConfigError

from .branch import Tree


def in_steps(training: Tree, stop_given: bool) -> Tree:
    """Training options with `warmup_ratio`, `decay_rate` and `smooth` put in terms of ours.

    deepmd-kit's rate is start decay_rate^floor(step / decay_steps), and not below stop_lr; ours is the same
    with the value that it has after the last step as `learning_rate_stop`.

    Args:
        stop_given: whether the file names stop_lr or stop_lr_ratio.

    Raises:
        ConfigError: the number of steps is not in the file, or the rate would be constant at the end.
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
    if decay is None:
        return out | smooth
    if not 0.0 < decay <= 1.0:
        raise ConfigError(f"learning_rate.decay_rate = {decay:g} is not allowed; allowed: above 0, at most 1")
    interval, start = out["decay_steps"], out["learning_rate"]
    total = steps - min(out["warmup_steps"], steps // 5)
    last = start * decay ** (total / interval)
    if interval >= total or (stop_given and out["learning_rate_stop"] > last):
        raise ConfigError(
            f"learning_rate.decay_rate = {decay:g} with decay_steps = {interval} of {steps} steps is not "
            "supported: the rate would be constant for some of the run; leave it out and write stop_lr"
        )
    return out | {"learning_rate_stop": last} | smooth
