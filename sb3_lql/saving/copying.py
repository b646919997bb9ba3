"""Models that can be copied and pickled: by themselves, and in the middle of ``learn``."""

import inspect
from abc import abstractmethod
from typing import Any

from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, unwrap_vec_normalize

from sb3_lql.collecting.collection import CollectionMixin
from sb3_lql.collecting.workers import subprocesses

#: What a copy makes for itself: names for parts of the policy, open files, and what only holds within ``learn``.
_MADE_ANEW = (
    *("critic", "critic_target", "_batch_norm_stats"),
    *("_logger", "_custom_logger"),
    *("_learning", "_learning_starts_shift", "_checked_env"),
)

#: Environments without their wrappers, and the class and state of each wrapper from the innermost to the outermost.
_Layers = tuple[VecEnv, list[tuple[type[VecEnvWrapper], Any]]]


class CopyingMixin(CollectionMixin):
    """
    A model for ``copy.deepcopy`` and ``pickle``, whose copies share nothing with it: they act as it does, and learn on
    in copies of its environments, with a log of their own.

    Where the environments are processes of their own, which cannot be copied, the copy has none, until ``set_env``. A
    copy that was made within ``learn`` begins with a reset, as the step that was being made is not stored.
    """

    @abstractmethod
    def _create_aliases(self) -> None:
        """Give parts of the policy names of the model's."""

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
            buffer.device = self.device  # one on a GPU forgets on which
        if isinstance(buffer, HerReplayBuffer):
            buffer.env = self.env
        if "policy" in state:  # it was set up
            self._create_aliases()


def _take_apart(env: VecEnv) -> _Layers:
    """SB3's wrappers cannot be copied, or come back without what they are around."""
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
    # Of a user's class that says what is to be copied, that; SB3's own forgets the returns of the current episodes
    get_state = getattr(type(wrapper), "__getstate__", None)
    if get_state in (None, getattr(object, "__getstate__", None), VecNormalize.__getstate__):
        get_state = vars
    return {name: value for name, value in get_state(wrapper).items() if name not in ("venv", "class_attributes")}
