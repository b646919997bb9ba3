"""Small networks are trained with one thread, whatever PyTorch was told; afterwards it is told that again."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch as th
from torch import nn

from sb3_lql.collecting.threads import WORTH_SHARING, threads_for
from sb3_lql.networks.layers import EnsembleLinear


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = th.get_num_threads()
    th.set_num_threads(2)
    yield
    th.set_num_threads(before)


@pytest.mark.parametrize(
    ("network", "batch_size", "n_threads"),
    [
        (nn.Linear(64, 64), 64, 1),
        (nn.Linear(64, 64), WORTH_SHARING // 64**2, 2),
        (nn.Sequential(nn.Linear(4, 4), nn.Linear(256, 256)), 256, 2),
        (nn.Linear(64, 64, device="meta"), 64, 2),
        (nn.Identity(), 64, 1),
        (EnsembleLinear(2, 64, 64), 256, 1),
        (EnsembleLinear(2, 256, 256), 64, 2),
    ],
)
def test_threads_follow_the_largest_product(network: nn.Module, batch_size: int, n_threads: int) -> None:
    with threads_for(network, batch_size):
        assert th.get_num_threads() == n_threads
    assert th.get_num_threads() == 2


def test_threads_are_never_added() -> None:
    th.set_num_threads(1)
    with threads_for(nn.Linear(1024, 1024), 256):
        assert th.get_num_threads() == 1


def test_learn_takes_one_thread_for_small_networks_and_gives_the_others_back(
    algorithm: Any, tiny: dict[str, Any]
) -> None:
    seen = set()

    def stop(variables: dict[str, Any], _: dict[str, Any]) -> bool:
        seen.add(th.get_num_threads())
        if variables["self"].num_timesteps == 60:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        algorithm("MlpPolicy", "Pendulum-v1", **tiny).learn(100, callback=stop)
    assert seen == {1}
    assert th.get_num_threads() == 2
