"""The first compilation of a kernel is announced, once; what comes from the cache is not."""

import logging

import pytest

event = pytest.importorskip("numba.core.event")


def test_a_kernel_of_the_package_is_announced_once(caplog, monkeypatch):
    from numba import njit

    from dpa2calc.kernels import compiling

    monkeypatch.setitem(event._registered, "numba:compile", [compiling._Announcement()])
    with caplog.at_level(logging.INFO):
        njit(lambda x: x + 1)(1)  # someone else's
        assert "compiling kernels" not in caplog.text
        for value in (2, 3):

            def kernel(x, value=value):
                return x + value

            kernel.__module__ = "dpa2calc.model.config.presets"
            njit(kernel)(1)
    assert caplog.text.count("compiling kernels for this machine, once; about 30 s") == 1
