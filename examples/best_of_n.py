"""What ``n_action_samples`` costs when acting: milliseconds per ``predict``, for one and for five observations."""

import time

import numpy as np

from sb3_lql import NCLQL


def milliseconds(model: NCLQL, n_observations: int, repetitions: int = 50) -> float:
    """Median time of a stochastic ``predict``."""
    observations = np.stack([model.observation_space.sample()] * n_observations)
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        model.predict(observations)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


if __name__ == "__main__":
    print("| N | 1 observation | 5 observations |\n|---|---|---|")
    for n_action_samples in (1, 4, 16, 64):
        model = NCLQL("MlpPolicy", "HalfCheetah-v5", buffer_size=10, n_action_samples=n_action_samples)
        milliseconds(model, 1)  # warm-up
        row = [f"{milliseconds(model, n_observations):.1f} ms" for n_observations in (1, 5)]
        print(f"| {n_action_samples} | {' | '.join(row)} |")
