"""How a model is saved and loaded."""

from collections.abc import Iterable
from io import BufferedIOBase
from pathlib import Path
from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_lql.common import checkpoint as checkpoints
from sb3_lql.common import safe
from sb3_lql.common.buffers import float32_space
from sb3_lql.common.files import whole_file, with_suffix
from sb3_lql.common.model import LangevinModel

SelfSavable = TypeVar("SelfSavable", bound="SavableModel")


class SavableModel(LangevinModel):
    """SB3's files, written in one stroke, and checkpoints from which a training goes on as if nothing had happened."""

    def save(
        self,
        path: str | Path | BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        SB3's ``save``. A kill or a full disk leave the file that was there.

        :param path: name of the file, to which ".zip" is added where it has no suffix; or an open file
        :param exclude: attributes to leave out besides those that always are
        :param include: attributes to keep that usually are left out
        """
        if not isinstance(path, str | Path):
            super().save(path, exclude, include)
            return
        with whole_file(with_suffix(path, ".zip")) as file:
            super().save(file, exclude, include)  # type: ignore[arg-type]

    def save_replay_buffer(self, path: str | Path | BufferedIOBase) -> None:
        """
        SB3's ``save_replay_buffer``. A kill or a full disk leave the file that was there.

        :param path: name of the file, to which ".pkl" is added where it has no suffix; or an open file
        """
        if not isinstance(path, str | Path):
            super().save_replay_buffer(path)
            return
        with whole_file(with_suffix(path, ".pkl")) as file:
            super().save_replay_buffer(file)  # type: ignore[arg-type]

    def load_replay_buffer(self, path: str | Path | BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """
        SB3's ``load_replay_buffer``.

        :param path: name of the file, or an open file
        :param truncate_last_traj: for ``HerReplayBuffer``, end the episodes that were being played
        :raises ValueError: if the buffer holds something else than what this model learns from; it keeps its own then
        """
        before = self.replay_buffer
        try:
            super().load_replay_buffer(path, truncate_last_traj)
            self._check_loaded_buffer()
        except BaseException:
            self.replay_buffer = before
            raise

    def _check_loaded_buffer(self) -> None:
        buffer = self.replay_buffer
        assert buffer is not None
        pairs = {
            "observation_space": (float32_space(buffer.observation_space), float32_space(self.observation_space)),
            "action_space": (buffer.action_space, self.action_space),
            "n_envs": (buffer.n_envs, self.n_envs),
        }
        for name, (of_buffer, of_model) in pairs.items():
            if of_buffer != of_model:
                raise ValueError(
                    f"The replay buffer has {name}={of_buffer}, the model {of_model}: load one that was collected in "
                    "the model's environments."
                )

    def save_checkpoint(self, folder: str | Path, keep: int | None = None) -> Path:
        """
        Save all that a training needs to go on in another process: model, optimiser, replay buffer, statistics of
        ``VecNormalize``, counters and random states, but not what the environments are doing. A kill or a full disk at
        any moment leave the checkpoints that were there.

        :param folder: folder for checkpoints; each gets a folder of its own within
        :param keep: afterwards, delete all checkpoints there but the newest so many; ``None`` for no limit
        :return: the checkpoint's folder
        :raises ValueError: if the model has no environments
        """
        if self.env is None:
            raise ValueError("A checkpoint is of a training, and this model has no env: call set_env first, or save.")
        return checkpoints.save_checkpoint(self, Path(folder), keep)

    @classmethod
    def load_checkpoint(
        cls: type[SelfSavable], folder: str | Path, env: GymEnv | str, device: th.device | str = "auto", **kwargs: Any
    ) -> SelfSavable:
        """
        Go on with a training: ``learn(n, reset_num_timesteps=False)`` then takes up where the checkpoint was made, in
        new episodes. Checkpoints hold pickles: load your own only.

        :param folder: a checkpoint, or a folder of them, of which the newest is taken
        :param env: as many environments as before, or their id; put into a ``VecNormalize`` if they were in one and are
            not
        :param device: as in ``load``
        :param kwargs: arguments of the constructor to change, as in ``load``
        :return: the model
        :raises ValueError: if there is no whole checkpoint, or if it is of another algorithm or of other environments
        """
        found = checkpoints.find_checkpoint(Path(folder))
        if found is None:
            raise ValueError(f"{folder} holds no checkpoint: pass what save_checkpoint was given, or has returned.")
        manifest = checkpoints.read_manifest(found)
        if manifest["algorithm"] != cls.__name__:
            raise ValueError(f"{found} is of {manifest['algorithm']}: load it with {manifest['algorithm']}.")
        env = vectorized(env)
        if env.num_envs != manifest["n_envs"]:
            raise ValueError(
                f"{found} was made with {manifest['n_envs']} environments, env has {env.num_envs}: pass as many."
            )
        if (found / checkpoints.NORMALIZATION).is_file() and unwrap_vec_normalize(env) is None:
            env = VecNormalize.load(str(found / checkpoints.NORMALIZATION), env)
        model = cls.load(found / checkpoints.MODEL, env=env, device=device, **kwargs)
        checkpoints.restore(model, found)
        return model

    def save_safe(self, path: str | Path) -> None:
        """
        Save what it takes to act and to learn on, but for the replay buffer, in a file that holds no code: tensors
        (safetensors) and JSON. A kill or a full disk leave the file that was there.

        :param path: name of the file, to which ".safetensors" is added where it has no suffix
        :raises ValueError: if the model could not be loaded from such a file
        """
        self.train_postponed()
        safe.save_safe(self, path)

    @classmethod
    def load_safe(
        cls: type[SelfSavable],
        path: str | Path,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> SelfSavable:
        """
        Load what :meth:`save_safe` has saved, from whomever it comes: nothing in the file is executed, and all of it is
        checked.

        :param path: the file
        :param env: environments to learn on in; put into a ``VecNormalize`` if they were in one and are not
        :param device: as in ``load``
        :param custom_objects: what is code and cannot be in the file, by the names that the error asks for, such as
            ``{"learning_rate": schedule}``
        :param kwargs: arguments of the constructor to change, as in ``load``
        :return: the model
        :raises ValueError: if the file is damaged, malicious or of something else, or if something is missing in
            ``custom_objects``
        :raises TypeError: for an unknown argument
        """
        return safe.load_safe(cls, path, env, device, custom_objects, **kwargs)


def vectorized(env: GymEnv | str) -> VecEnv:
    """
    :param env: an environment, its id, or several
    :return: the same as several, as SB3 makes it of one
    """
    env = maybe_make_env(env, verbose=0)
    if isinstance(env, VecEnv):
        return env
    monitored = env if is_wrapped(env, Monitor) else Monitor(env)
    return DummyVecEnv([lambda: monitored])
