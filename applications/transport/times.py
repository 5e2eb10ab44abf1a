"""The time between the frames of a trajectory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from dpa2calc.errors import ConfigError, DataError


def interval_of(interval_fs: float | None, times: Sequence[object], name: str) -> float:
    """Time between frames in fs: the one given, or that of the frames' own times.

    Args:
        times: `info["time_fs"]` of two or more frames, None where there is none. name: of the trajectory.

    Raises:
        ConfigError: an interval that is not above 0, or none given and a frame without a time.
        DataError: the times are not even.

    Warns:
        UserWarning: the frames say another interval than the one given.
    """
    odd = [time for time in times if not _is_time(time)]
    steps = np.empty(0) if odd else np.diff(np.array(times, dtype=float))
    if interval_fs is not None:
        if not (np.isfinite(interval_fs) and interval_fs > 0.0):
            raise ConfigError(f"interval_fs = {interval_fs}: the time between frames must be > 0")
        if not odd and abs((own := float(np.median(steps))) - interval_fs) > 0.01 * interval_fs:
            warnings.warn(
                f"{name}: interval_fs = {interval_fs:g}, but the frames say that they are {own:g} fs "
                f"apart; {interval_fs:g} fs is taken", stacklevel=4,
            )  # fmt: skip
        return float(interval_fs)
    if odd:
        wrong = next((f" as a number, but as {time!r}" for time in odd if time is not None), "")
        raise ConfigError(
            f"{name} does not store the time of its frames (info['time_fs']){wrong}; give interval_fs, the "
            "time between the frames that are read"
        )
    if steps.min() <= 0.0 or steps.max() - steps.min() > 1e-3 * steps.max():
        raise DataError(
            f"{name}: the time between frames runs from {steps.min():g} to {steps.max():g} fs, but it "
            "must be even; select frames with Frames(start, stop, step) or write them evenly"
        )
    return float(steps.mean())


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)
