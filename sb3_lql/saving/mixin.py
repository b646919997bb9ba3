"""How a model is saved and loaded."""

from collections.abc import Iterable
from io import BufferedIOBase
from pathlib import Path
from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import GymEnv

from sb3_lql.collecting.collection import CollectionMixin
from sb3_lql.collecting.replay import ReplayMixin
from sb3_lql.common.buffer_layout import REPLAY_BUFFERS
from sb3_lql.common.buffers import float32_space
from sb3_lql.common.compatibility import check_foreign_arguments
from sb3_lql.common.files import atomic_write, with_suffix
from sb3_lql.saving import checkpoint as checkpoints
from sb3_lql.saving import safe
from sb3_lql.saving.normalization import check_spaces_within
from sb3_lql.saving.zip_files import algorithm_names, check_zip_file

SelfSavable = TypeVar("SelfSavable", bound="SavingMixin")


class SavingMixin(ReplayMixin, CollectionMixin):
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
        self._algorithms = algorithm_names(type(self))  # by which `load` knows whether the file is its own
        if not isinstance(path, str | Path):
            super().save(path, exclude, include)
            return
        with atomic_write(with_suffix(path, ".zip")) as file:
            super().save(file, exclude, include)  # type: ignore[arg-type]

    @classmethod
    def load(
        cls: type[SelfSavable],
        path: str | Path | BufferedIOBase,
        env: GymEnv | str | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfSavable:
        """
        SB3's ``load``. The file can run any code of whoever made it: load your own, or use :meth:`load_safe`.

        :param path: name of the file, to which ".zip" is added if there is none of that name; or an open file
        :param env: environments to learn in, or their id; ``None`` to act only
        :param device: where to compute
        :param custom_objects: what to take instead of what the file holds, by name
        :param print_system_info: print the versions that the model was saved with
        :param force_reset: reset the environments before learning
        :param kwargs: arguments of the constructor to change
        :return: the model
        :raises FileNotFoundError: if there is no such file
        :raises ValueError: if the file is damaged, of another algorithm or of other environments
        :raises TypeError: for an argument that only other algorithms have
        """
        check_foreign_arguments(cls.__name__, kwargs)
        check_zip_file(path, algorithm_names(cls))
        return super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)  # type: ignore[arg-type]

    def save_replay_buffer(self, path: str | Path | BufferedIOBase) -> None:
        """
        SB3's ``save_replay_buffer``. A kill or a full disk leave the file that was there.

        :param path: name of the file, to which ".pkl" is added where it has no suffix; or an open file
        """
        if not isinstance(path, str | Path):
            super().save_replay_buffer(path)
            return
        with atomic_write(with_suffix(path, ".pkl")) as file:
            super().save_replay_buffer(file)  # type: ignore[arg-type]

    def load_replay_buffer(self, path: str | Path | BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """
        SB3's ``load_replay_buffer``.

        :param path: name of the file, or an open file
        :param truncate_last_traj: for ``HerReplayBuffer``, end the episodes that were being played
        :raises ValueError: if the buffer holds something else than what this model learns from; it keeps its own then
        """
        before = self.__dict__["replay_buffer"]
        try:
            super().load_replay_buffer(path, truncate_last_traj)
            self._check_loaded_buffer(self.replay_buffer, before)
        except BaseException:
            self.replay_buffer = before
            raise

    def _check_loaded_buffer(self, buffer: ReplayBuffer, own: ReplayBuffer | None) -> None:
        """Whether a buffer holds what the model's own does, where it is of a class whose storage is known."""
        if type(buffer) not in REPLAY_BUFFERS:
            return
        if own is None and issubclass(self.replay_buffer_class or ReplayBuffer, NStepReplayBuffer):
            own = self._new_replay_buffer()
        n_steps, gamma = _returns(own)
        pairs = {
            "observation_space": (float32_space(buffer.observation_space), float32_space(self.observation_space)),
            "action_space": (buffer.action_space, self.action_space),
            "n_steps": (_returns(buffer)[0], n_steps),
            "gamma": (_returns(buffer)[1], gamma),
        }
        for name, (of_buffer, of_model) in pairs.items():
            if of_buffer != of_model:
                raise ValueError(
                    f"The replay buffer has {name}={of_buffer}, the model's own {of_model}: load one that was "
                    "collected with the same."
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
            not. One that they are in keeps its settings, and is given the statistics
        :param device: as in ``load``
        :param kwargs: arguments of the constructor to change, as in ``load``; but not those that the replay buffer was
            made with
        :return: the model
        :raises ValueError: if there is no checkpoint, or if it is damaged, of another algorithm, of other environments
            or of another replay buffer
        """
        found = checkpoints.find_checkpoint(Path(folder))
        if found is None:
            raise ValueError(f"{folder} holds no checkpoint: pass what save_checkpoint was given, or has returned.")
        env = cls._wrap_env(env)
        check_spaces_within(env)
        checkpoints.check_agreement(found, algorithm=cls.__name__, n_envs=env.num_envs)
        checkpoints.check_whole(found)
        env = checkpoints.with_saved_normalization(env, found)
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
        env: GymEnv | str | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> SelfSavable:
        """
        Load what :meth:`save_safe` has saved, from whomever it comes: nothing in the file is executed, and all of it is
        checked.

        :param path: the file
        :param env: environments to learn on in, or their id; put into a ``VecNormalize`` if they were in one and are
            not. ``None`` to act only, on observations that ``get_vec_normalize_env()`` has normalised, if there is one
        :param device: as in ``load``
        :param custom_objects: what is code and cannot be in the file, by the names that the error asks for, such as
            ``{"learning_rate": schedule}``
        :param kwargs: arguments of the constructor to change, as in ``load``
        :return: the model
        :raises ValueError: if the file is damaged, malicious or of something else, or if something is missing in
            ``custom_objects``
        :raises TypeError: for an unknown argument
        """
        check_foreign_arguments(cls.__name__, kwargs)
        return safe.load_safe(cls, path, env, device, custom_objects, **kwargs)


def _returns(buffer: ReplayBuffer | None) -> tuple[int, float | None]:
    """Rewards per return, and the discount, which the model has where there is one reward."""
    return (buffer.n_steps, buffer.gamma) if isinstance(buffer, NStepReplayBuffer) else (1, None)
