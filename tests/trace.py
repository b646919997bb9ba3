"""What short trainings compute, in numbers: ``python -m tests.trace`` records it in ``trace.json``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecNormalize

from sb3_lql import LQL, NCLQL

FILE = Path(__file__).with_suffix(".json")
#: Updates that are traced. Along chains of normalised scores, the rounding of one machine grows beside another's.
N_UPDATES = 10
OBSERVATIONS = 3

_TINY: dict[str, Any] = dict(
    policy_kwargs=dict(net_arch=[32, 32]), buffer_size=500, learning_starts=20, batch_size=32, seed=0, device="cpu"
)


def _pendulum() -> Any:
    return make_vec_env("Pendulum-v1", 2, seed=0)


def _images() -> Any:
    env = FakeImageEnv(screen_height=36, screen_width=36, discrete=False)
    env.observation_space.seed(0)  # which its reset leaves alone
    return env


#: By name: the class, the policy, the environments and what differs from the default arguments.
SETTINGS: dict[str, tuple[Any, str, Any, dict[str, Any]]] = {
    "lql": (LQL, "MlpPolicy", _pendulum, {}),
    "lql, schedule of step sizes, n-step returns": (
        *(LQL, "MlpPolicy", _pendulum),
        dict(langevin_step_size=(1.0, 1e-4), n_steps=3, target_update_interval=2, n_langevin_steps=6),
    ),
    "lql, score as it is, Dict": (
        *(LQL, "MultiInputPolicy", lambda: SimpleMultiObsEnv(discrete_actions=False)),
        dict(normalize_score=False, inverse_temperature=5.0, langevin_step_size=0.01),
    ),
    "nclql": (NCLQL, "MlpPolicy", _pendulum, {}),
    "nclql, VecNormalize, best of 3, three critics": (
        *(NCLQL, "MlpPolicy", lambda: VecNormalize(_pendulum())),
        dict(n_action_samples=3, policy_kwargs=dict(net_arch=[32], n_critics=3, activation_fn=th.nn.GELU)),
    ),
    "nclql, images, overlap": (
        *(NCLQL, "CnnPolicy", _images),
        dict(overlap_updates=True, buffer_size=100, batch_size=4, n_noise_levels=3),
    ),
}


class _Logged(Logger):
    """Keeps what it is told under ``train/``."""

    def __init__(self) -> None:
        super().__init__(folder=None, output_formats=[])
        self.values: dict[str, float] = {}

    def dump(self, step: int = 0) -> None:
        self.values |= {name: float(value) for name, value in self.name_to_value.items() if name.startswith("train/")}
        super().dump(step)


def trace(name: str) -> dict[str, Any]:
    """
    :param name: of the settings
    :return: weights, what was logged, and actions after a few updates, as numbers
    """
    algorithm, policy, make_env, kwargs = SETTINGS[name]
    env = make_env()
    model = algorithm(policy, env, **_TINY | kwargs)
    logger = _Logged()
    model.set_logger(logger)
    model.learn(20 + N_UPDATES * model.n_envs)
    model.train(2, 16)
    model.dump_logs()
    space = model.observation_space
    space.seed(0)
    samples = [space.sample() for _ in range(OBSERVATIONS)]
    observations: Any = np.stack(samples) if not isinstance(samples[0], dict) else None
    if observations is None:
        observations = {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
    th.manual_seed(0)
    drawn, _ = model.predict(observations)
    fixed, _ = model.predict(observations, deterministic=True)
    weights = {key: value.double() for key, value in model.policy.state_dict().items()}
    return {
        "n_updates": model._n_updates,
        "weights": {key: [float(value.sum()), float(value.abs().sum())] for key, value in weights.items()},
        "logged": logger.values,
        "drawn actions": drawn.tolist(),
        "deterministic actions": fixed.tolist(),
        "next random numbers": [float(th.rand(())), float(np.random.rand())],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: trace(name) for name in SETTINGS}, indent=1) + "\n")
