"""Networks, features extractors and optimizers of the user's choice."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_lql import NCLQL
from sb3_lql.langevin.policies import LangevinPolicy

LEVEL_DIM = 16  # what the embedding of a noise level adds to the critic's input


def build(algorithm: Any, tiny: dict[str, Any], policy: Any = "MlpPolicy", **policy_kwargs: Any) -> Any:
    return algorithm(policy, "Pendulum-v1", seed=0, **(tiny | dict(policy_kwargs=policy_kwargs)))


def learn(model: Any) -> Any:
    """A few updates, after which every parameter must be finite and the online critic's must have moved."""
    before = [parameter.clone() for parameter in model.critic.parameters()]
    model.learn(53)
    assert model._n_updates == 3
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
    moved = [not th.equal(old, new) for old, new in zip(before, model.critic.parameters(), strict=True)]
    assert all(moved)
    return model


def layer_sizes(model: Any) -> list[int]:
    """Input size and hidden sizes of the critic."""
    return [layer.weight.shape[1] for layer in model.critic.layers]


@pytest.mark.parametrize(
    ("net_arch", "hidden"),
    [([], []), ([8], [8]), ([8, 4, 6], [8, 4, 6]), (dict(qf=[8, 4], pi=[32]), [8, 4]), (dict(qf=[]), [])],
)
def test_net_arch_gives_the_hidden_layers(
    algorithm: Any, tiny: dict[str, Any], net_arch: Any, hidden: list[int]
) -> None:
    model = learn(build(algorithm, tiny, net_arch=net_arch))
    n_inputs = 3 + 1 + (LEVEL_DIM if algorithm is NCLQL else 0)
    assert layer_sizes(model) == [n_inputs, *hidden]


def test_by_default_two_critics_of_three_mish_layers_of_256(algorithm: Any) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", buffer_size=10, device="cpu")
    assert model.policy.net_arch == layer_sizes(model)[1:] == [256, 256, 256]
    assert [type(activation) for activation in model.critic.activations] == [nn.Mish] * 3
    assert model.policy.n_critics == 2
    assert type(model.policy.optimizer) is th.optim.Adam


@pytest.mark.parametrize("n_critics", [1, 2, 3])
def test_there_are_as_many_critics_as_wanted(algorithm: Any, tiny: dict[str, Any], n_critics: int) -> None:
    model = learn(build(algorithm, tiny, n_critics=n_critics, net_arch=[8]))
    q_values = model.critic(th.zeros(5, 3), th.zeros(5, 1))
    assert q_values.shape == (n_critics, 5, 1)
    assert all(not th.equal(q_values[0], other) for other in q_values[1:])


@pytest.mark.parametrize("activation_fn", [nn.Mish, nn.ReLU, nn.Tanh, nn.SiLU, nn.GELU, nn.ELU])
def test_any_activation_can_be_chosen(algorithm: Any, tiny: dict[str, Any], activation_fn: Any) -> None:
    model = learn(build(algorithm, tiny, activation_fn=activation_fn, net_arch=[8, 8]))
    assert [type(activation) for activation in model.critic.activations] == [activation_fn] * 2
    if algorithm is NCLQL:
        embedding = model.critic.level_encoder.net
        assert any(isinstance(module, nn.Mish) for module in embedding)  # the embedding of levels is not the user's


class Extractor(BaseFeaturesExtractor):
    """One linear layer and whatever normalises it."""

    def __init__(self, observation_space: spaces.Box, layer: type[nn.Module], features_dim: int = 6) -> None:
        super().__init__(observation_space, features_dim)
        self.net = nn.Sequential(nn.Linear(observation_space.shape[0], features_dim), layer(features_dim), nn.ReLU())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.net(observations)
        return features


class HalfDropout(nn.Dropout):
    """Dropout that takes, and ignores, the number of features."""

    def __init__(self, _: int) -> None:
        super().__init__(0.5)


@pytest.mark.parametrize("layer", [nn.LayerNorm, nn.BatchNorm1d, HalfDropout])
def test_a_features_extractor_of_the_users_own_is_trained(algorithm: Any, tiny: dict[str, Any], layer: Any) -> None:
    kwargs = dict(features_extractor_class=Extractor, features_extractor_kwargs=dict(layer=layer, features_dim=5))
    model = learn(build(algorithm, tiny, net_arch=[8], **kwargs))
    assert model.critic.input_parts[0] == 5
    assert model.critic.features_extractor is not model.critic_target.features_extractor


@pytest.mark.parametrize("layer", [nn.LayerNorm, nn.BatchNorm1d])
def test_the_target_starts_as_a_copy_with_its_extractor(algorithm: Any, tiny: dict[str, Any], layer: Any) -> None:
    kwargs = dict(features_extractor_class=Extractor, features_extractor_kwargs=dict(layer=layer))
    model = build(algorithm, tiny, **kwargs)
    online, target = model.critic.state_dict(), model.critic_target.state_dict()
    assert online.keys() == target.keys()
    assert all(th.equal(online[name], target[name]) for name in online)


class Pretrained(BaseFeaturesExtractor):
    """A network that was made elsewhere, and features of one's own weights beside it."""

    def __init__(self, observation_space: spaces.Box, encoder: nn.Module, weight: th.Tensor) -> None:
        super().__init__(observation_space, 8)
        self.encoder = encoder
        self.weight = nn.Parameter(weight, requires_grad=False)  # another parameter in each critic, in the same memory

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.cat([self.encoder(observations), observations @ self.weight], dim=1)


def pretrained_model(algorithm: Any, tiny: dict[str, Any], frozen: bool, **kwargs: Any) -> tuple[Any, nn.Sequential]:
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).requires_grad_(not frozen)
    extractor = dict(encoder=encoder, weight=th.randn(3, 4))
    policy_kwargs = dict(net_arch=[8], features_extractor_class=Pretrained, features_extractor_kwargs=extractor)
    return algorithm("MlpPolicy", "Pendulum-v1", **(tiny | dict(policy_kwargs=policy_kwargs) | kwargs)), encoder


@pytest.mark.parametrize("frozen", [True, False])
def test_the_target_update_leaves_what_critic_and_target_share(
    algorithm: Any, tiny: dict[str, Any], frozen: bool
) -> None:
    model, encoder = pretrained_model(algorithm, tiny, frozen, tau=0.5, learning_rate=0.0)
    shared = [*encoder.parameters(), model.critic.features_extractor.weight]
    before = [parameter.clone() for parameter in shared]
    with th.no_grad():
        model.critic.layers[0].weight.add_(1.0)  # the target follows this
    model.learn(70)
    assert model._n_updates == 20
    assert all(map(th.equal, before, shared))
    variance = encoder.state_dict()["1.running_var"]
    assert (variance > 0.0).all()  # of its inputs, and not multiplied by anything
    th.testing.assert_close(model.critic_target.layers[0].weight, model.critic.layers[0].weight)


def test_what_critic_and_target_share_learns_if_it_is_not_frozen(algorithm: Any, tiny: dict[str, Any]) -> None:
    model, encoder = pretrained_model(algorithm, tiny, frozen=False, tau=0.5, learning_rate=1e-5)
    before = [parameter.clone() for parameter in encoder.parameters()]
    model.learn(55)
    for old, new in zip(before, encoder.parameters(), strict=True):
        assert not th.equal(old, new)
        assert (old - new).abs().max() < 1e-4  # Adam's steps, and no other


def test_a_pretrained_network_is_saved_and_stays_where_it_is(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path
) -> None:
    model, encoder = pretrained_model(algorithm, tiny, frozen=True)
    model.learn(52)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.save(tmp_path / "model")
    model.save_safe(tmp_path / "model")
    code = {
        "policy_kwargs.features_extractor_class": Pretrained,
        "policy_kwargs.features_extractor_kwargs.encoder": deepcopy(encoder),
        "policy_kwargs.features_extractor_kwargs.weight": th.zeros(3, 4),
    }
    loaded = [
        algorithm.load(tmp_path / "model", device="cpu"),
        algorithm.load_safe(tmp_path / "model", device="cpu", custom_objects=code),
    ]
    for each in (model, *loaded):
        state = each.policy.state_dict()
        assert all(th.equal(value, state[name]) for name, value in before.items())


class Fourier(BaseFeaturesExtractor):
    """Complex weights on a spectrum, and some of double precision."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 6)
        self.weight = nn.Parameter(th.randn(3, 3, dtype=th.complex64))
        self.precise = nn.Linear(6, 6).double()

    def forward(self, observations: th.Tensor) -> th.Tensor:
        spectrum = th.fft.fft(observations) @ self.weight
        features: th.Tensor = self.precise(th.cat([spectrum.real, spectrum.imag], dim=1).double())
        return features.float()


@pytest.mark.parametrize("optimizer_class", [th.optim.Adam, th.optim.AdamW, th.optim.SGD])
def test_parameters_may_be_complex(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, optimizer_class: type[th.optim.Optimizer]
) -> None:
    kwargs: dict[str, Any] = dict(features_extractor_class=Fourier, optimizer_class=optimizer_class, net_arch=[8])
    model = learn(build(algorithm, tiny, **kwargs))
    target = model.critic_target.features_extractor.weight
    assert not th.equal(target, model.critic.features_extractor.weight)
    model.save_safe(tmp_path / "model")
    code = {"policy_kwargs.features_extractor_class": Fourier}
    loaded = algorithm.load_safe(tmp_path / "model", device="cpu", custom_objects=code)
    assert th.equal(loaded.critic_target.features_extractor.weight, target)


@pytest.mark.parametrize(
    ("optimizer_class", "optimizer_kwargs"),
    [
        (th.optim.Adam, dict(betas=(0.5, 0.9), eps=1e-3)),
        (th.optim.AdamW, dict(weight_decay=0.5)),
        (th.optim.SGD, dict(momentum=0.5)),
        (th.optim.RMSprop, dict(alpha=0.5)),
    ],
)
def test_the_optimizer_and_its_settings_are_the_users(
    algorithm: Any, tiny: dict[str, Any], optimizer_class: Any, optimizer_kwargs: dict[str, Any]
) -> None:
    chosen = dict(optimizer_kwargs)
    model = build(algorithm, tiny, optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs, net_arch=[8])
    learn(model)
    assert type(model.policy.optimizer) is optimizer_class
    (group,) = model.policy.optimizer.param_groups
    assert {name: group[name] for name in chosen} == chosen == optimizer_kwargs
    assert len(group["params"]) == len(list(model.critic.parameters()))


@pytest.mark.parametrize(
    ("net_arch", "error"),
    [
        (dict(pi=[8]), ValueError),
        ("64", ValueError),
        (64, ValueError),
        ([0], ValueError),
        ([8, -1], ValueError),
        ([8.5], TypeError),
        (dict(qf=64), ValueError),
        (dict(qf=[8], pi=8), ValueError),
        (dict(qf=[8], vf=[8]), ValueError),
    ],
)
def test_a_net_arch_that_makes_no_network_is_refused(
    algorithm: Any, tiny: dict[str, Any], net_arch: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="net_arch"):
        build(algorithm, tiny, net_arch=net_arch)


@pytest.mark.parametrize(
    ("n_critics", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_a_number_of_critics_that_is_none_is_refused(
    algorithm: Any, tiny: dict[str, Any], n_critics: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"n_critics={n_critics}"):
        build(algorithm, tiny, n_critics=n_critics)


def test_a_policy_can_be_given_as_a_class(algorithm: Any, tiny: dict[str, Any]) -> None:
    class MyPolicy(LangevinPolicy):
        pass

    assert type(learn(build(algorithm, tiny, policy=MyPolicy)).policy) is MyPolicy


def test_an_unknown_policy_is_refused_by_name(algorithm: Any, tiny: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="NoSuchPolicy"):
        build(algorithm, tiny, policy="NoSuchPolicy")


def test_the_cnns_features_extractor_takes_arguments(algorithm: Any, tiny: dict[str, Any]) -> None:
    env = FakeImageEnv(screen_height=36, screen_width=36, discrete=False)
    kwargs = tiny | dict(
        learning_starts=5,
        buffer_size=20,
        batch_size=4,
        policy_kwargs=dict(net_arch=[8], features_extractor_kwargs=dict(features_dim=7)),
    )
    model = algorithm("CnnPolicy", env, **kwargs).learn(7)
    assert model._n_updates == 2
    assert model.critic.input_parts[0] == 7
