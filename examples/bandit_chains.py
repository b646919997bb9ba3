"""Which chain finds the high modes of the paper's 2-D bandit, given a perfect critic? Minutes on one CPU core.

For each chain that has no ``w``, it is chosen as in the paper (appendix C.1): the highest mean reward over [1, 500].
"""

import argparse
from typing import Any

from sb3_lql import LQL, NCLQL
from sb3_lql.benchmark.bandit.measures import mode_table, summarize
from sb3_lql.benchmark.bandit.runs import INVERSE_TEMPERATURES, draw_with_perfect_critic

SMOOTH = dict(sigma_max=0.3, sigma_min=0.1)
#: Settings that are not those of table 6, which are the constructors' defaults.
CHAINS: list[tuple[type[LQL | NCLQL], dict[str, Any]]] = [
    (NCLQL, SMOOTH),
    (NCLQL, dict(SMOOTH, n_langevin_steps=1)),
    (NCLQL, dict(sigma_max=0.7, sigma_min=0.04, normalize_score=False)),
    (NCLQL, {}),
    (LQL, {}),
    (LQL, dict(n_langevin_steps=10)),
    *[(LQL, dict(langevin_step_size=size)) for size in (3e-4, 1e-3, 3e-3, 1e-2)],
    *[(LQL, dict(normalize_score=False, langevin_step_size=size)) for size in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)],
    *[(LQL, dict(langevin_step_size=pair)) for pair in ((9e-4, 1e-4), (4e-3, 1e-4), (1.0, 1e-4), (1e-2, 1e-3))],
    # Ten to five hundred times as long
    *[
        (LQL, dict(langevin_step_size=(1e-2, 1e-4), n_langevin_steps=n, inverse_temperature=100.0))
        for n in (200, 1_000)
    ],
    (
        LQL,
        dict(normalize_score=False, langevin_step_size=2.5e-4, n_langevin_steps=10_000, inverse_temperature=20.0),
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-actions", type=int, default=10_000, help="actions to draw from each chain")
    n_actions = parser.parse_args().n_actions

    rows = []
    for algorithm, chain in CHAINS:
        # One critic, of the reward itself: the distribution is exp(w * reward)
        single: dict[str, Any] = dict(reward_scale=1.0, policy_kwargs=dict(n_critics=1))
        model = algorithm("MlpPolicy", "MultimodalBandit-v0", **single, **chain)
        given = chain.get("inverse_temperature")
        measured = []
        for model.inverse_temperature in INVERSE_TEMPERATURES if given is None else [given]:
            measures = summarize(draw_with_perfect_critic(model, n_actions, seed=0))
            measured.append((measures["reward_mean"], model.inverse_temperature, measures))
        _, w, measures = max(measured, key=lambda entry: entry[0])
        settings = ", ".join(f"{name}={value}" for name, value in {**chain, "inverse_temperature": float(w)}.items())
        rows.append((f"`{algorithm.__name__}({settings})`", measures))
    print(mode_table(rows), end="")


if __name__ == "__main__":
    main()
