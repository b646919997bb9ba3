"""The algorithms that the paper compares with."""

from sb3_lql.baselines.dacer import DACER
from sb3_lql.baselines.dipo import DIPO
from sb3_lql.baselines.dpmd import DPMD
from sb3_lql.baselines.mvp import MVP
from sb3_lql.baselines.qsm import QSM
from sb3_lql.baselines.qvpo import QVPO
from sb3_lql.baselines.sdac import SDAC

__all__ = ["DACER", "DIPO", "DPMD", "MVP", "QSM", "QVPO", "SDAC"]
