"""NC-LQL by its authors' code in JAX, to be timed beside this library where somebody has it."""

import importlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

#: What their code needs besides.
REQUIREMENTS = "jax, dm-haiku, optax and numpyro"


class Transitions(NamedTuple):
    """A minibatch, by the names that their update reads."""

    obs: Any
    action: Any
    reward: Any
    next_obs: Any
    done: Any


class AuthorsNCLQL:
    """
    Their agent with its default settings, which are this library's, on random transitions.

    :param path: a clone of https://github.com/ku-dmlab/NCLQL; timed at commit c4781a5
    :param observation_dim: number of observations
    :param action_dim: number of action coordinates
    :param batch_size: transitions of an update
    :raises ValueError: if their code is not there, or cannot be imported
    """

    def __init__(self, path: Path, observation_dim: int, action_dim: int, batch_size: int) -> None:
        if not (path / "relax" / "algorithm" / "nclql.py").is_file():
            raise ValueError(f"{path} is no clone of https://github.com/ku-dmlab/NCLQL: pass the folder of one.")
        sys.path.insert(0, str(path))
        try:
            jax = importlib.import_module("jax")
            algorithm = importlib.import_module("relax.algorithm.nclql")
            network = importlib.import_module("relax.network.nclql")
        except ImportError as error:
            raise ValueError(
                f"the code in {path} cannot be imported ({error}): install {REQUIREMENTS} beside this library."
            ) from error
        finally:
            sys.path.remove(str(path))
        self.key = jax.random.key(0)
        agent, parameters = network.create_NCLQL_net(self.key, observation_dim, action_dim, [256, 256, 256])
        self.model = algorithm.NCLQL(agent, parameters)
        random = np.random.default_rng(0)
        batch = Transitions(
            obs=random.standard_normal((batch_size, observation_dim)),
            action=random.uniform(-1.0, 1.0, (batch_size, action_dim)),
            reward=random.standard_normal(batch_size),
            next_obs=random.standard_normal((batch_size, observation_dim)),
            done=random.random(batch_size) < 0.01,
        )
        self.batch = Transitions(*(values.astype(np.float32) for values in batch))

    def update(self) -> None:
        """One update, whose losses are fetched, as their trainer does."""
        self.model.update(self.key, self.batch)

    def predict(self, observations: np.ndarray) -> np.ndarray:
        """One draw for each observation."""
        actions: np.ndarray = self.model.get_action(self.key, observations.astype(np.float32))
        return actions
