"""dpa2calc comes before torch, as its pages advise: tests beside other jobs then get their share of the cores."""

import dpa2calc  # noqa: F401
