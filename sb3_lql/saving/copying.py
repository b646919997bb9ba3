"""Models that can be copied and pickled, even during ``learn``."""

import inspect
from abc import abstractmethod
from typing import Any

from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, unwrap_vec_normalize

from sb3_lql.collecting.collection import CollectionMixin
from sb3_lql.collecting.workers import subprocesses

#: Attributes that a copy creates anew: aliases for parts of the policy, open files, and state of a running ``learn``.
_MADE_ANEW = (
    *("critic", "critic_target", "_statistics"),
    *("_logger", "_custom_logger"),
    *("_learning", "_learning_starts_shift", "_checked_env"),
)

#: Environments without their wrappers, and the class and state of each wrapper, innermost first.
_Layers = tuple[VecEnv, list[tuple[type[VecEnvWrapper], Any]]]


class CopyingMixin(CollectionMixin):
    """
    Supports ``copy.deepcopy`` and ``pickle``. A copy shares nothing with the model: it acts the same, and learns in
    copies of its environments, with its own log. Environments in subprocesses cannot be copied: the copy has none until
    ``set_env``. A copy made during ``learn`` starts with a reset, as the current step is not stored.
    """

    @abstractmethod
    def _create_aliases(self) -> None:
        """Make parts of the policy attributes of the model."""

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name not in _MADE_ANEW}
        if self._learning:
            state["_last_obs"] = None
        if self.env is not None:
            state["env"] = None if subprocesses(self.env) is not None else _take_apart(self.env)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._logger = Logger(folder=None, output_formats=[])
        self._custom_logger = False
        if state["env"] is not None:
            self.env = _put_together(state["env"])
            self._vec_normalize_env = unwrap_vec_normalize(self.env)
        buffer = state["replay_buffer"]
        if buffer is not None:
            buffer.device = self.device  # on a GPU, it lost the device index
        if isinstance(buffer, HerReplayBuffer):
            buffer.env = self.env
        if "policy" in state:  # the model was set up
            self._create_aliases()


def _take_apart(env: VecEnv) -> _Layers:
    """SB3's wrappers cannot be copied, or lose the environments that they wrap."""
    layers = []
    while isinstance(env, VecEnvWrapper):
        layers.append((type(env), _state(env)))
        env = env.venv
    return env, layers[::-1]


def _put_together(layers: _Layers) -> VecEnv:
    env, wrappers = layers
    for wrapper_class, state in wrappers:
        wrapper = wrapper_class.__new__(wrapper_class)
        set_state = getattr(wrapper_class, "__setstate__", None)
        if set_state in (None, VecNormalize.__setstate__):
            vars(wrapper).update(state)
        else:
            set_state(wrapper, state)
        vars(wrapper).update(venv=env, class_attributes=dict(inspect.getmembers(wrapper_class)))
        env = wrapper
    return env


def _state(wrapper: VecEnvWrapper) -> dict[str, Any]:
    # Respect a user's __getstate__, but not SB3's, which drops the returns of the current episodes
    get_state = getattr(type(wrapper), "__getstate__", None)
    if get_state in (None, getattr(object, "__getstate__", None), VecNormalize.__getstate__):
        get_state = vars
    return {name: value for name, value in get_state(wrapper).items() if name not in ("venv", "class_attributes")}
