"""Saving and loading methods of a model."""

import inspect
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
from sb3_lql.common.compatibility import FOREIGN_ARGUMENTS, check_arguments_known
from sb3_lql.common.files import atomic_write, with_suffix
from sb3_lql.common.validation import check_count
from sb3_lql.saving import checkpoint as checkpoints
from sb3_lql.saving import safe
from sb3_lql.saving.normalization import check_spaces_within
from sb3_lql.saving.safe.arguments import changeable
from sb3_lql.saving.zip_files import algorithm_names, check_zip_file

SelfSavable = TypeVar("SelfSavable", bound="SavingMixin")


class SavingMixin(ReplayMixin, CollectionMixin):
    """SB3's files, written atomically, and checkpoints from which a training resumes as if never interrupted."""

    def save(
        self,
        path: str | Path | BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        SB3's ``save``. A kill or a full disk leaves a previous file intact.

        :param path: file name, with ".zip" added if it has no suffix; or an open file
        :param exclude: attributes to leave out, besides those that always are
        :param include: attributes to keep that are usually left out
        """
        self._algorithms = algorithm_names(type(self))  # lets `load` reject files of other algorithms
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
        SB3's ``load``. The file can execute arbitrary code: load only files you trust, or use :meth:`load_safe`.

        :param path: file name, with ".zip" added if that file does not exist; or an open file
        :param env: environments to learn in, or their id; ``None`` to act only
        :param device: where to compute
        :param custom_objects: replacements for objects in the file, by name
        :param print_system_info: print the versions that the model was saved with
        :param force_reset: reset the environments before learning
        :param kwargs: arguments of the constructor, or other attributes in the file, to change
        :return: the model
        :raises FileNotFoundError: if the file does not exist
        :raises ValueError: if the file is damaged, or from another algorithm or other environments
        :raises TypeError: for an unknown argument
        """
        saved = check_zip_file(path, algorithm_names(cls))
        # SB3's base class stores arguments of SAC's, so that every file has them
        known = {*changeable(cls), *(saved - FOREIGN_ARGUMENTS.keys())}
        check_arguments_known(cls.__name__, kwargs, known, also=inspect.signature(cls.load).parameters)
        return super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)  # type: ignore[arg-type]

    def save_replay_buffer(self, path: str | Path | BufferedIOBase) -> None:
        """
        SB3's ``save_replay_buffer``. A kill or a full disk leaves a previous file intact.

        :param path: file name, with ".pkl" added if it has no suffix; or an open file
        """
        if not isinstance(path, str | Path):
            super().save_replay_buffer(path)
            return
        with atomic_write(with_suffix(path, ".pkl")) as file:
            super().save_replay_buffer(file)  # type: ignore[arg-type]

    def load_replay_buffer(self, path: str | Path | BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """
        SB3's ``load_replay_buffer``.

        :param path: file name, or an open file
        :param truncate_last_traj: for ``HerReplayBuffer``, end unfinished episodes
        :raises ValueError: if the buffer does not fit this model, which then keeps its own
        """
        before = self.__dict__["replay_buffer"]
        try:
            super().load_replay_buffer(path, truncate_last_traj)
            self._check_loaded_buffer(self.replay_buffer, before)
        except BaseException:
            self.replay_buffer = before
            raise

    def _check_loaded_buffer(self, buffer: ReplayBuffer, own: ReplayBuffer | None) -> None:
        """Check that a buffer serves the algorithm and, of a known class, holds what the model's own does."""
        self._check_replay_buffer_class(type(buffer))
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
                    "collected with the same value."
                )

    def save_checkpoint(self, folder: str | Path, keep: int | None = None) -> Path:
        """
        Save all that a training needs to resume in another process: model, optimiser, replay buffer, statistics of
        ``VecNormalize``, counters and random states, but not the state of the environments. A kill or a full disk at
        any moment leaves earlier checkpoints intact.

        :param folder: folder for checkpoints; each gets a subfolder
        :param keep: number of newest checkpoints to keep; ``None`` for all
        :return: the checkpoint's folder
        :raises ValueError: if the model has no environments, or ``keep`` is below 1
        """
        if keep is not None:
            check_count("keep", keep)
        if self.env is None:
            raise ValueError("This model has no env, which a checkpoint needs: call set_env first, or use save.")
        return checkpoints.save_checkpoint(self, Path(folder), keep)

    @classmethod
    def load_checkpoint(
        cls: type[SelfSavable], folder: str | Path, env: GymEnv | str, device: th.device | str = "auto", **kwargs: Any
    ) -> SelfSavable:
        """
        Resume a training: ``learn(n, reset_num_timesteps=False)`` then continues from the checkpoint, in new episodes.
        Checkpoints hold pickles: load only those you trust.

        :param folder: a checkpoint, or a folder of checkpoints, of which the newest is loaded
        :param env: as many environments as before, or their id; wrapped in a ``VecNormalize`` if they were before and
            are not now. An existing one keeps its settings and receives the statistics
        :param device: as in ``load``
        :param kwargs: arguments of the constructor to change, as in ``load``, except those of the replay buffer
        :return: the model
        :raises ValueError: if there is no checkpoint, or it is damaged, or from another algorithm, other environments
            or another replay buffer
        :raises TypeError: for an unknown argument
        """
        found = checkpoints.find_checkpoint(Path(folder))
        if found is None:
            raise ValueError(f"{folder} holds no checkpoint: pass the argument or the result of save_checkpoint.")
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
        Save all that the model needs to act and to keep learning, except the replay buffer, in a file without code:
        tensors (safetensors) and JSON. A kill or a full disk leaves a previous file intact.

        :param path: file name, with ".safetensors" added if it has no suffix
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
        Load a file of :meth:`save_safe`, even from an untrusted source: nothing in it is executed, and all of it is
        checked.

        :param path: the file
        :param env: environments to learn in, or their id; wrapped in a ``VecNormalize`` if they were before and are not
            now. ``None`` to act only, on observations normalised with ``get_vec_normalize_env()``, if there is one
        :param device: as in ``load``
        :param custom_objects: objects that are code, which the file cannot hold, by the names in the error message,
            such as ``{"learning_rate": schedule}``
        :param kwargs: arguments of the constructor to change, as in ``load``
        :return: the model
        :raises ValueError: if the file is damaged, malicious or does not fit, or if ``custom_objects`` lacks something
        :raises TypeError: for an unknown argument
        """
        return safe.load_safe(cls, path, env, device, custom_objects, **kwargs)


def _returns(buffer: ReplayBuffer | None) -> tuple[int, float | None]:
    """Rewards per return, and the discount, which a buffer only stores for n-step returns."""
    return (buffer.n_steps, buffer.gamma) if isinstance(buffer, NStepReplayBuffer) else (1, None)
