"""Replay buffers on the networks' device."""

from math import prod
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecNormalize

from sb3_lql.common.buffer_files import n_used_steps
from sb3_lql.common.buffers import FIELDS, Float32Storage, upload
from sb3_lql.common.scaling import running_std, standardize


def _flat(name: str, value: Any) -> dict[str, Any]:
    """The value by its name, or the values of a dict by ``name.key``."""
    return {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}


def _nested(name: str, values: dict[str, Any]) -> Any:
    """The inverse of :func:`_flat`."""
    if name in values:
        return values[name]
    return {key.removeprefix(f"{name}."): part for key, part in values.items() if key.startswith(f"{name}.")}


class _Table:
    """
    Named fields of every environment's steps, initially zero. All fields of one dtype share one tensor of shape
    (n_steps * n_envs, width), so that writing and reading take one operation per dtype, not per field.
    """

    def __init__(
        self, n_steps: int, n_envs: int, fields: dict[str, tuple[tuple[int, ...], np.dtype[Any]]], device: th.device
    ) -> None:
        self.n_steps, self.n_envs, self.fields = n_steps, n_envs, fields
        self.columns: dict[str, tuple[np.dtype[Any], slice, tuple[int, ...]]] = {}
        widths: dict[np.dtype[Any], int] = {}
        for name, (shape, dtype) in fields.items():
            start = widths.get(dtype, 0)
            widths[dtype] = start + prod(shape)
            self.columns[name] = dtype, slice(start, widths[dtype]), shape
        # Unlike torch's zeros, NumPy's take no memory until they are written
        zeros = {dtype: th.from_numpy(np.zeros((n_steps * n_envs, width), dtype)) for dtype, width in widths.items()}
        on_cpu = device.type == "cpu"
        self.tensors = zeros if on_cpu else {key: th.zeros_like(like, device=device) for key, like in zeros.items()}
        self.device = th.empty(0, device=device).device  # with its index

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Write one step: arrays of shape (n_envs, ...), of any dtype; names that are not fields are ignored."""
        for dtype, tensor in self.tensors.items():
            names = [name for name, column in self.columns.items() if column[0] == dtype]
            parts = [values[name].reshape(self.n_envs, -1) for name in names]
            rows = np.concatenate(parts, axis=1, dtype=dtype, casting="unsafe")
            tensor[step * self.n_envs : (step + 1) * self.n_envs] = upload(rows, tensor.device)

    def read(self, rows: th.Tensor | None = None) -> dict[str, th.Tensor]:
        """Copies of rows, by indices on the device, shape (batch, ...); without indices, views of all rows."""
        tables = self.tensors
        if rows is not None:
            tables = {dtype: tensor.index_select(0, rows) for dtype, tensor in tables.items()}
        return {name: tables[dtype][:, at].view(-1, *shape) for name, (dtype, at, shape) in self.columns.items()}

    def to(self, device: th.device, n_used: int) -> "_Table":
        """The table itself if it is already on the device, or a copy there with only the ``n_used`` steps in use."""
        if th.empty(0, device=device).device == self.device:
            return self
        table = _Table(self.n_steps, self.n_envs, self.fields, device)
        n_rows = n_used * self.n_envs
        for dtype, tensor in self.tensors.items():
            table.tensors[dtype][:n_rows] = tensor[:n_rows]
        return table

    def __getstate__(self) -> dict[str, Any]:
        # Arrays are pickled without a copy
        return self.__dict__ | dict(tensors={dtype: tensor.numpy() for dtype, tensor in self.tensors.items()})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, tensors={dtype: th.from_numpy(array) for dtype, array in state["tensors"].items()})


class DeviceReplayBuffer(Float32Storage):
    """
    SB3's ``ReplayBuffer`` in float32, with all transitions on ``device``. Minibatches are gathered there, with indices
    drawn as in SB3, and ``sample`` does not wait for the device. N-step returns and HER are not supported.

    The arguments are SB3's.

    :raises ValueError: if the class does not match the observations (``Dict`` or not), or for
        ``optimize_memory_usage`` with ``Dict`` observations or with ``handle_timeout_termination``
    """

    #: Type of minibatches.
    samples_class: ClassVar[type[Any]] = ReplayBufferSamples
    #: A tensor of shape (buffer_size, n_envs, ...), or a dict of them.
    observations: Any
    #: Like the observations.
    next_observations: Any
    #: Shape (buffer_size, n_envs, action_dim), in [-1, 1].
    actions: th.Tensor  # type: ignore[assignment]
    #: Shape (buffer_size, n_envs), like the next two.
    rewards: th.Tensor  # type: ignore[assignment]
    #: Whether an episode has ended, as float32.
    dones: th.Tensor  # type: ignore[assignment]
    #: Whether it ended by a time limit, as float32.
    timeouts: th.Tensor  # type: ignore[assignment]

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ) -> None:
        is_dict = isinstance(observation_space, spaces.Dict)
        if is_dict != isinstance(self, DictReplayBuffer):
            fitting = "DeviceDictReplayBuffer" if is_dict else "DeviceReplayBuffer"
            raise ValueError(f"{type(self).__name__} does not hold {observation_space}: use {fitting} instead.")
        if is_dict and optimize_memory_usage:
            raise ValueError("optimize_memory_usage=True is not supported for Dict observations: leave it out.")
        # One step of SB3's own storage is enough to tell the parts of a transition
        super().__init__(
            n_envs, observation_space, action_space, device, n_envs, optimize_memory_usage, handle_timeout_termination
        )
        self.buffer_size = max(buffer_size // n_envs, 1)
        self._names = [name for name in FIELDS if hasattr(self, name)]
        step = [field for name in self._names for field in _flat(name, getattr(self, name)).items()]
        fields = {name: (array.shape[2:], array.dtype) for name, array in step}
        self._table = _Table(self.buffer_size, n_envs, fields, self._device)
        self._set_views()

    @property
    def device(self) -> th.device:
        """Where the transitions are stored. Setting it moves them."""
        return self._device

    @device.setter
    def device(self, device: th.device | str) -> None:
        self._device = get_device(device)
        if hasattr(self, "_table"):  # SB3's constructor sets the device first
            self._table = self._table.to(self._device, n_used_steps(self))
            self._set_views()

    def _set_views(self) -> None:
        """Expose the table as SB3's attributes: tensors that share its memory."""
        shape = self.buffer_size, self.n_envs
        views = {name: rows.view(*shape, *rows.shape[1:]) for name, rows in self._table.read().items()}
        for name in self._names:
            setattr(self, name, _nested(name, views))

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in self._names}
        # Stored on the CPU, so that it loads on machines without such a device
        return state | dict(_table=self._table.to(th.device("cpu"), n_used_steps(self)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.device = self._device.type  # without its index: this machine may have fewer GPUs

    def add(
        self,
        obs: np.ndarray | dict[str, np.ndarray],
        next_obs: np.ndarray | dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one step of every environment, with one copy to the device per dtype. The arguments are SB3's."""
        timeouts = [self.handle_timeout_termination and info.get("TimeLimit.truncated", False) for info in infos]
        values = dict(actions=action, rewards=reward, dones=done, timeouts=np.array(timeouts))
        values |= _flat("observations", obs) | _flat("next_observations", next_obs)
        self._table.write(self.pos, values)
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full = True
            self.pos = 0
        if self.optimize_memory_usage:  # only the observation of the next step is known, and read
            self._table.write(self.pos, values | dict(observations=next_obs))

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> Any:
        env_inds = np.random.randint(0, high=self.n_envs, size=(len(batch_inds),))
        rows = upload(np.ravel_multi_index((batch_inds, env_inds), (self.buffer_size, self.n_envs)), self.device)
        batch = self._table.read(rows)
        if self.optimize_memory_usage:
            next_rows = (rows + self.n_envs) % (self.buffer_size * self.n_envs)
            batch["next_observations"] = self._table.read(next_rows)["observations"]
        if env is not None:
            self._normalize(batch, env)
        return self.samples_class(
            observations=_nested("observations", batch),
            actions=batch["actions"],
            next_observations=_nested("next_observations", batch),
            dones=(batch["dones"] * (1 - batch["timeouts"])).unsqueeze(1),
            rewards=batch["rewards"].unsqueeze(1),
        )

    def _normalize(self, batch: dict[str, th.Tensor], env: VecNormalize) -> None:
        """Done on the device. The statistics change with every step and are sent each time."""
        if env.norm_obs:
            by_key = {key: env.obs_rms[key] for key in env.norm_obs_keys} if env.norm_obs_keys else env.obs_rms
            for name, rms in _flat("observations", by_key).items():
                statistics = np.stack([rms.mean, running_std(rms, env.epsilon)]).astype(np.float32)
                mean, std = upload(statistics, self.device)
                for field in (name, f"next_{name}"):
                    batch[field] = standardize(batch[field], mean, std, env.clip_obs)
        if env.norm_reward:
            reward_std = float(running_std(env.ret_rms, env.epsilon))
            batch["rewards"] = standardize(batch["rewards"], 0.0, reward_std, env.clip_reward)


class DeviceDictReplayBuffer(DeviceReplayBuffer, DictReplayBuffer):
    """:class:`DeviceReplayBuffer` for ``Dict`` observations."""

    #: Type of minibatches.
    samples_class = DictReplayBufferSamples


def check_replay_buffer(
    replay_buffer_class: type[ReplayBuffer] | None, replay_buffer_kwargs: dict[str, Any], n_steps: int
) -> None:
    """Raise a ``ValueError`` for n-step returns or HER with a device buffer, which supports neither."""
    if replay_buffer_class is None or not issubclass(replay_buffer_class, DeviceReplayBuffer):
        return
    name = replay_buffer_class.__name__
    if n_steps > 1:
        raise ValueError(
            f"replay_buffer_class={name} has no n-step returns, but n_steps={n_steps}: leave replay_buffer_class out, "
            "or set n_steps=1."
        )
    unknown = replay_buffer_kwargs.keys() - {"handle_timeout_termination"}
    if unknown:
        raise ValueError(
            f"replay_buffer_kwargs={replay_buffer_kwargs!r}: replay_buffer_class={name} has neither n-step returns nor "
            f"hindsight and takes no {', '.join(sorted(unknown))}; choose another class."
        )
