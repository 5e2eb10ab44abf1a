"""dpa2calc comes before torch, as its pages advise, so that tests get their share of busy cores."""

import os

os.environ["MPLBACKEND"] = "Agg"  # figures of pyplot open no window

import dpa2calc  # noqa: F401
