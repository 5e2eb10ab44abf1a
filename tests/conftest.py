"""dpa2calc comes before torch, as its pages advise, so that tests get their share of busy cores."""

import dpa2calc  # noqa: F401
