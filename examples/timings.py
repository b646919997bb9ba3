"""What acting and learning cost on HalfCheetah-v5: ``predict`` for several N, and an update beside SAC's."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3 import SAC
from torch import nn

from sb3_lql import NCLQL

ENV_ID = "HalfCheetah-v5"


def milliseconds(function: Callable[..., Any], *arguments: Any, repetitions: int = 50) -> float:
    """Median time of a call, after one to warm up."""
    times = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[1:]))


def print_predict_times() -> None:
    """A stochastic ``predict`` for one and for five observations."""
    print("| N | 1 observation | 5 observations |\n|---|---|---|")
    for n_action_samples in (1, 4, 16, 64):
        model = NCLQL("MlpPolicy", ENV_ID, buffer_size=10, n_action_samples=n_action_samples)
        row = []
        for n_observations in (1, 5):
            observations = np.stack([model.observation_space.sample()] * n_observations)
            row.append(f"{milliseconds(model.predict, observations):.1f} ms")
        print(f"| {n_action_samples} | {' | '.join(row)} |")


def print_update_times() -> None:
    """An update at batch size 256 with 3 x 256 units, for NC-LQL and for SAC."""
    sac_net = dict(net_arch=[256, 256, 256], activation_fn=nn.GELU)
    times = {}
    for name, model in {
        "NC-LQL": NCLQL("MlpPolicy", ENV_ID, buffer_size=5_000, learning_starts=300),
        "SAC": SAC("MlpPolicy", ENV_ID, buffer_size=5_000, learning_starts=300, policy_kwargs=sac_net),
    }.items():
        model.learn(301)
        times[name] = milliseconds(model.train, 1, 256)
        print(f"{name} update: {times[name]:.1f} ms")
    print(f"ratio: {times['NC-LQL'] / times['SAC']:.1f}")


if __name__ == "__main__":
    print_predict_times()
    print_update_times()
