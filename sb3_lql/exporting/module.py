"""A policy as a plain PyTorch module, for exporters."""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_lql.common.scaling import center_and_half_range, running_std, standardize
from sb3_lql.engine.policy import ChainPolicy, best_of_samples

Precision = Literal["float64", "float32"]

#: A dtype and a shape, in which a dynamic size has a name.
InputType = tuple[th.dtype, tuple[int | str, ...]]

#: Input name of observations that are not a dictionary.
OBSERVATIONS = "observations"


class PolicyModule(nn.Module):
    """
    A copy of a policy on the CPU that maps observations to actions with tensor operations only, without randomness:
    deterministic chains have fixed draws, the others take them as arguments. Features are extracted in
    float32, as in the policy; the chain, and the choice among several chains, are computed in the given precision.
    Raises ``ValueError`` if ``vec_normalize`` does not fit the observations, or if the policy cannot be exported.
    """

    #: The policy's fixed draws, with a row for each of ``n_action_samples``.
    fixed: th.Tensor
    #: Center of the action box, of its shape, like the next three.
    center: th.Tensor
    #: Half of the box's width.
    half_range: th.Tensor
    #: Its lower bounds.
    low: th.Tensor
    #: Its upper bounds.
    high: th.Tensor

    def __init__(
        self,
        policy: ChainPolicy,
        deterministic: bool = True,
        vec_normalize: VecNormalize | None = None,
        precision: Precision = "float64",
    ) -> None:
        super().__init__()
        self.observation_space, self.action_space = policy.observation_space, policy.action_space
        self.deterministic, self.vec_normalize, self.precision = deterministic, vec_normalize, precision
        self.dtype: th.dtype = getattr(th, precision)
        self.n_action_samples, self.action_dim = policy.n_action_samples, policy.action_dim
        learned_features = any(True for _ in policy.critic.features_extractor.parameters())
        #: Precision in which ``predict`` computes the same.
        self.predict_precision = "float32" if learned_features or policy.exact_dtype is th.float32 else "float64"
        self.chain = policy.exportable(self.dtype)
        #: Shapes of the draws that are arguments, by name.
        self.draw_shapes = {} if deterministic else policy.draw_shapes()
        self.normalizers = _make_normalizers(vec_normalize, self.observation_space)
        self.register_buffer("fixed", policy.fixed_draws().to(self.dtype))
        self._register_bounds()
        self.train(False)
        self.requires_grad_(False)

    def forward(self, observations: PyTorchObs, *draws: th.Tensor) -> th.Tensor:
        """
        Actions in the action space's bounds and dtype, shape ``(batch, *action_shape)``. Observations have the
        environment's scale and dtype, but channels-first images; draws are those of :meth:`inputs_drawn`.
        """
        features = self.chain.critic.features(self._normalize(observations)).to(self.dtype)
        if self.deterministic:
            draws = (self.fixed.expand(features.shape[0], -1, -1).flatten(0, 1),)
        else:
            draws = tuple(draw.to(self.dtype) for draw in self.chain_draws(draws))
        if self.n_action_samples > 1:
            # repeat_interleave would fix the size of the batch in torch.export
            features = features[:, None].expand(-1, self.n_action_samples, -1).flatten(0, 1)
        actions = self.chain(features, *draws)
        actions = best_of_samples(
            actions, self.n_action_samples, lambda: self.chain.critic.lowest_q_values(features, actions)
        )
        scaled = self.center + self.half_range * actions.to(self.center.dtype).reshape(-1, *self.action_space.shape)
        bounded = th.minimum(th.maximum(scaled, self.low), self.high)
        return bounded.to(_dtype(self.action_space))

    def inputs(self) -> dict[str, InputType]:
        """
        Dtypes and shapes by name, in the order of the arguments; the dynamic size is "batch". Raises ``ValueError`` if
        a key of the observations is also the name of a draw.
        """
        parts = _parts(self.observation_space).items()
        types: dict[str, InputType] = {name: (_dtype(part), ("batch", *(part.shape or ()))) for name, part in parts}
        drawn = self.inputs_drawn()
        for name in types.keys() & drawn.keys():
            raise ValueError(f"the observations' key {name!r} is the name of another input: rename it")
        return types | drawn

    def inputs_drawn(self) -> dict[str, InputType]:
        """The draws among :meth:`inputs`, with a dimension for several samples after that of the batch."""
        samples = [self.n_action_samples] if self.n_action_samples > 1 else []
        types: dict[str, InputType] = {}
        for name, shape in self.draw_shapes.items():
            after = shape.index("batch") + 1
            types[name] = th.float32, (*shape[:after], *samples, *shape[after:])
        return types

    def chain_draws(self, draws: Iterable[th.Tensor]) -> list[th.Tensor]:
        """Draws shaped as in :meth:`inputs_drawn`, as the chain takes them: with a row per sample."""
        shapes = ([-1 if size == "batch" else int(size) for size in shape] for shape in self.draw_shapes.values())
        return [draw.reshape(shape) for draw, shape in zip(draws, shapes, strict=True)]

    def example(self, batch_size: int) -> tuple[Any, ...]:
        """Arguments of zeros, or of the smallest value for discrete observations."""
        tensors = {
            name: th.zeros([batch_size if size == "batch" else int(size) for size in shape], dtype=dtype)
            for name, (dtype, shape) in self.inputs().items()
        }
        for name, part in _parts(self.observation_space).items():
            if isinstance(part, (spaces.Discrete, spaces.MultiDiscrete)):
                tensors[name] += th.tensor(np.asarray(part.start, np.int64))
        draws = [tensors.pop(name) for name in self.draw_shapes]
        return (tensors if isinstance(self.observation_space, spaces.Dict) else tensors[OBSERVATIONS], *draws)

    def _register_bounds(self) -> None:
        box = self.action_space
        center, half_range = center_and_half_range(box)
        dtype = th.float64 if box.dtype == np.float64 else self.dtype  # bounds in float64 may overflow float32
        for name, value in dict(low=box.low, high=box.high, center=center, half_range=half_range).items():
            self.register_buffer(name, th.as_tensor(value, dtype=dtype))

    def _normalize(self, observations: PyTorchObs) -> PyTorchObs:
        parts = observations if isinstance(observations, dict) else {OBSERVATIONS: observations}
        normalized = {
            key: self.normalizers[key](value) if key in self.normalizers else value for key, value in parts.items()
        }
        return normalized if isinstance(observations, dict) else normalized[OBSERVATIONS]


class _Normalizer(nn.Module):
    """Normalises observations as ``VecNormalize`` does, in float64."""

    mean: th.Tensor
    std: th.Tensor

    def __init__(self, statistics: RunningMeanStd, epsilon: float, clip: float) -> None:
        super().__init__()
        self.clip = float(clip)
        self.register_buffer("mean", th.as_tensor(statistics.mean, dtype=th.float64))
        self.register_buffer("std", th.as_tensor(running_std(statistics, epsilon), dtype=th.float64))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return standardize(observations.double(), self.mean, self.std, self.clip).float()


def _make_normalizers(vec_normalize: VecNormalize | None, space: spaces.Space[Any]) -> nn.ModuleDict:
    """A normaliser for each key of the observations with statistics."""
    if vec_normalize is None or not vec_normalize.norm_obs:
        return nn.ModuleDict()
    statistics: Any = vec_normalize.obs_rms
    given = statistics if isinstance(statistics, dict) else {OBSERVATIONS: statistics}
    shapes = {name: running.mean.shape for name, running in given.items()}
    if not shapes.items() <= {name: part.shape for name, part in _parts(space).items()}.items():
        raise ValueError(
            f"vec_normalize has statistics for observations of shapes {shapes}, but the model takes {space}: pass the "
            "VecNormalize that it was trained with."
        )
    return nn.ModuleDict(
        {name: _Normalizer(running, vec_normalize.epsilon, vec_normalize.clip_obs) for name, running in given.items()}
    )


def _parts(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {OBSERVATIONS: space}


def _dtype(space: spaces.Space[Any]) -> th.dtype:
    return th.from_numpy(np.zeros(1, space.dtype)).dtype
