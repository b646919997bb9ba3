"""
The update written the obvious way: what the library's is timed against, and compared with number for number.

Nothing here is batched over critics, fused, compiled or computed once for a whole chain, and that is its point.
"""

from copy import deepcopy

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import nn
from torch.nn import functional as F

from sb3_lql.common.scaling import scale_from_unit
from sb3_lql.langevin.family import LangevinAlgorithm
from sb3_lql.networks.critics import EnsembleCritic
from sb3_lql.networks.layers import EnsembleLinear, sinusoidal_levels


def _linear(layer: nn.Module, member: int) -> nn.Linear:
    """One member of a batched linear layer, as a layer of its own."""
    assert isinstance(layer, EnsembleLinear)
    _, in_features, out_features = layer.weight.shape
    linear = nn.Linear(in_features, out_features, device=layer.weight.device)
    linear.load_state_dict({"weight": layer.weight[member].T, "bias": layer.bias[member, 0]})
    return linear


class NaiveCritic(nn.Module):
    """
    One network of an ensemble, with the same weights, made of ordinary layers. Activations must have no parameters.
    """

    codes: th.Tensor

    def __init__(self, critic: EnsembleCritic, member: int) -> None:
        super().__init__()
        *hidden, last = critic.layers
        layers: list[nn.Module] = []
        for layer, activation in zip(hidden, critic.activations, strict=True):
            layers += [_linear(layer, member), deepcopy(activation)]
        self.net = nn.Sequential(*layers, _linear(last, member))
        self.encoder: nn.Sequential | None = None
        if critic.level_encoder is not None:
            first, _, second = critic.level_encoder.net.children()
            self.encoder = nn.Sequential(_linear(first, member), nn.Mish(), _linear(second, member))
            codes = sinusoidal_levels(critic.level_encoder.codes.shape[0])
            self.register_buffer("codes", codes.to(critic.device), persistent=False)

    def forward(self, obs: th.Tensor, actions: th.Tensor, levels: th.Tensor) -> th.Tensor:
        """
        Q-values, shape (batch, 1), of actions in [-1, 1]; levels, shape (batch,), are ignored without noise
        conditioning.
        """
        inputs = [obs, actions]
        if self.encoder is not None:
            inputs.append(self.encoder(self.codes[levels]))
        q_values: th.Tensor = self.net(th.cat(inputs, dim=1))
        return q_values


class NaiveUpdate:
    """
    A model's update (algorithm 2; of LQL, the TD step alone) and its chain, on copies of the model's weights.

    Random numbers come from the global generator in the same order as the library's: initial actions, noise of the
    chain, noise levels, noise of the smoothing loss. After the same ``th.manual_seed`` they are the same numbers.

    The model must have ``MlpPolicy``, observe a ``Box`` of vectors (ValueError otherwise), and have a fresh optimiser.
    """

    def __init__(self, model: LangevinAlgorithm) -> None:
        space = model.observation_space
        if not (isinstance(space, spaces.Box) and len(space.shape) == 1):
            raise ValueError(f"The model observes {space}: pass one that observes a Box of vectors.")
        if not isinstance(model.critic.features_extractor, FlattenExtractor):
            name = type(model.critic.features_extractor).__name__
            raise ValueError(f"The model's features are made by {name}: pass a model with MlpPolicy.")
        sampler = model.policy.sampler
        self.device = model.device
        self.action_space = model.action_space
        self.action_dim = model.policy.action_dim
        self.step_sizes: list[float] = sampler.step_sizes.tolist()
        self.n_steps = sampler.n_steps
        self.sigmas = sampler.sigmas.clone() if sampler.noise_conditioned else None
        self.inverse_temperature = model.policy.sampler.inverse_temperature
        self.normalize_score = model.normalize_score
        self.reward_scale = model.reward_scale
        self.gamma = model.gamma
        self.tau = model.tau
        self.critics = [NaiveCritic(model.critic, member) for member in range(model.critic.n_critics)]
        self.targets = [NaiveCritic(model.critic_target, member) for member in range(model.critic.n_critics)]
        parameters = [parameter for critic in self.critics for parameter in critic.parameters()]
        self.optimizer = th.optim.Adam(parameters, lr=model.lr_schedule(1.0))

    def draw(self, batch_size: int) -> tuple[th.Tensor, th.Tensor]:
        """
        Initial actions, uniform on [-1, 1], shape (batch, action_dim), and the chain's noise, standard normal, shape
        (chain_length, batch, action_dim).
        """
        shape = (batch_size, self.action_dim)
        initial_actions = th.empty(shape, device=self.device).uniform_(-1, 1)
        return initial_actions, th.randn((len(self.step_sizes) * self.n_steps, *shape), device=self.device)

    def chain(self, obs: th.Tensor, initial_actions: th.Tensor, noise: th.Tensor) -> th.Tensor:
        """
        Algorithm 4 or 6: Langevin steps along the gradient of the sum of the critics. Returns actions in [-1, 1], of
        the shape of ``initial_actions``.
        """
        actions = initial_actions
        for step, z in enumerate(noise):
            level = step // self.n_steps
            step_size = self.step_sizes[level]
            score = self._score(obs, actions, level)
            actions = actions + step_size / 2 * self.inverse_temperature * score + step_size**0.5 * z
            actions = actions.clamp(-1, 1)
        return actions

    def predict(self, observations: np.ndarray) -> np.ndarray:
        """
        One stochastic action per observation, within the bounds of the action space, shape ``(batch, *action_shape)``.
        """
        obs = th.as_tensor(observations, dtype=th.float32, device=self.device)
        actions = self.chain(obs, *self.draw(len(obs)))
        return scale_from_unit(actions.cpu().numpy().reshape(-1, *self.action_space.shape), self.action_space)

    def update(self, replay_data: ReplayBufferSamples) -> None:
        """The TD step (equation 8, or 6), the smoothing step (equation 9) where there are noise levels, the targets."""
        obs, next_obs = replay_data.observations.float(), replay_data.next_observations.float()
        actions = replay_data.actions.float()
        last_level = self._levels(len(obs), len(self.step_sizes) - 1)
        next_actions = self.chain(next_obs, *self.draw(len(obs)))
        with th.no_grad():
            next_q_values = th.cat([target(next_obs, next_actions, last_level) for target in self.targets], dim=1)
            discounts = self.gamma if replay_data.discounts is None else replay_data.discounts
            bootstrap = (1 - replay_data.dones) * discounts * next_q_values.min(dim=1, keepdim=True).values
            td_target = self.reward_scale * replay_data.rewards + bootstrap
        q_values = [critic(obs, actions, last_level) for critic in self.critics]
        self._descend(q_values, td_target)
        if self.sigmas is not None and len(self.sigmas) > 1:
            smoothing_target = th.cat(q_values, dim=1).mean(dim=1, keepdim=True).detach()  # from before the TD step
            levels = th.randint(len(self.sigmas) - 1, (len(obs),), device=self.device)
            noisy_actions = actions + self.sigmas[levels, None] * th.randn_like(actions)
            self._descend([critic(obs, noisy_actions, levels) for critic in self.critics], smoothing_target)
        self._update_targets()

    def _levels(self, batch_size: int, level: int) -> th.Tensor:
        return th.full((batch_size,), level, device=self.device)

    def _score(self, obs: th.Tensor, actions: th.Tensor, level: int) -> th.Tensor:
        """The gradient of the sum of the critics in the action, normalised where the model does so (appendix E.2)."""
        levels = self._levels(len(obs), level)
        with th.enable_grad():
            actions = actions.detach().requires_grad_()
            q_values = th.cat([critic(obs, actions, levels) for critic in self.critics], dim=1)
            (score,) = th.autograd.grad(q_values.sum(), actions)
        return score / (score.norm(dim=1, keepdim=True) + 1e-8) if self.normalize_score else score

    def _descend(self, q_values: list[th.Tensor], target: th.Tensor) -> None:
        """One step of Adam on the sum over critics of the mean squared error."""
        loss = th.stack([F.mse_loss(q_value, target) for q_value in q_values]).sum()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    @th.no_grad()
    def _update_targets(self) -> None:
        for critic, target in zip(self.critics, self.targets, strict=True):
            for parameter, target_parameter in zip(critic.parameters(), target.parameters(), strict=True):
                target_parameter.mul_(1 - self.tau).add_(parameter, alpha=self.tau)
