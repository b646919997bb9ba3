"""The measures of table 4, on actions of which they are known."""

import numpy as np
import pytest

from sb3_lql.benchmark.bandit.measures import mode_table, summarize
from sb3_lql.envs.multimodal_bandit import reward

HIGH = {"top": (0, 2**0.5), "right": (2**0.5, 0), "bottom": (0, -(2**0.5)), "left": (-(2**0.5), 0)}


@pytest.mark.parametrize("name", HIGH)
def test_share_of_a_high_mode_counts_what_is_within_three_tenths(name: str) -> None:
    centre = np.array(HIGH[name])
    measures = summarize(centre + np.array([(0, 0), (0.299, 0), (0, -0.299), (0.301, 0), (0.22, 0.22)]))
    assert measures[name] == measures["sum"] == pytest.approx(3 / 5)
    assert [measures[other] for other in HIGH if other != name] == [0, 0, 0]
    assert measures["low"] == 0


def test_shares_add_up() -> None:
    actions = np.array([*HIGH.values(), (1, 1), (-1, 1), (-1, -1), (1, -1), (0, 0), (2, 2)])
    measures = summarize(actions)
    assert [measures[name] for name in HIGH] == [0.1] * 4
    assert measures["sum"] == measures["low"] == pytest.approx(0.4)
    assert measures["reward_mean"] == pytest.approx(reward(actions).mean())
    assert measures["reward_std"] == pytest.approx(reward(actions).std())


def test_table_has_the_columns_of_table_4_and_a_row_for_each_name() -> None:
    lines = mode_table([("A", summarize(np.array([HIGH["top"]])))]).splitlines()
    assert lines[0] == "|  | top | right | bottom | left | sum | low modes | reward | ± std |"
    assert lines[2] == "| A | 1.000 | 0.000 | 0.000 | 0.000 | 1.000 | 0.000 | 1.000 | 0.000 |"
