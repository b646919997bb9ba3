"""
The rivals as the paper very likely ran them, by the repository whose defaults are the paper's table of hyperparameters.

That this is what the paper ran is inferred. Quirks and defects are named at each class. SDAC and DPMD are not here:
that repository is their authors' own, and their defaults are its.
"""

from sb3_lql.baselines.compared.dacer import ComparedDACER
from sb3_lql.baselines.compared.dipo import ComparedDIPO
from sb3_lql.baselines.compared.qsm import ComparedQSM
from sb3_lql.baselines.compared.qvpo import ComparedQVPO
from sb3_lql.baselines.compared.sac import ComparedSAC

__all__ = ["ComparedDACER", "ComparedDIPO", "ComparedQSM", "ComparedQVPO", "ComparedSAC"]
