"""QSM: numbers of the authors' code, the loss written out, and which losses reach which networks."""

from typing import Any

import numpy as np
import pytest
import torch as th
from torch.nn import functional as F

from sb3_lql.baselines import QSM
from sb3_lql.diffusion.process import AncestralProcess, variance_preserving_schedule
from tests.baselines.checks import (
    TINY,
    parameters_on_humanoid,
    random_batch,
    what_changes,
)


@pytest.fixture
def model() -> Any:
    return QSM("MlpPolicy", "Pendulum-v1", **TINY)


@pytest.mark.parametrize(("noisy", "expected"), [(False, 0.47283), (True, 0.518796)])
def test_a_chain_ends_where_the_authors_ends(noisy: bool, expected: float) -> None:
    """epsilon = 0.5 x + 0.01 t from x_T = 0.4, with z_t = 0 or 0.5 (-1)^t."""
    process = AncestralProcess(variance_preserving_schedule(5))
    noise = th.tensor([0.5 * (-1.0) ** t for t in range(4, 0, -1)])[:, None, None]
    action = process(lambda x, t: 0.5 * x + 0.01 * t, th.tensor([[0.4]]), noise if noisy else None)
    assert action.item() == pytest.approx(expected, abs=2e-6)


def test_the_target_is_the_authors(model: Any) -> None:
    """Q_1 = a_1 + 2 a_2 and Q_2 = 3 a_1 - a_2: -100, -25."""
    slopes = th.tensor([[1.0, 2.0], [3.0, -1.0]])
    model.critic.action_gradient = lambda features: lambda actions, level: slopes.sum(dim=0).expand_as(actions)
    actions = th.tensor([[0.5, 0.25], [-0.5, 0.25]])
    assert model._denoising_target(th.zeros(2, 3), actions).tolist() == [[-100.0, -25.0]] * 2


def test_number_of_parameters_is_that_of_the_authors_networks() -> None:
    sizes = parameters_on_humanoid(QSM)
    assert (sizes["critic"], sum(sizes.values())) == (929_794, 1_493_299)


def test_weights_start_as_the_authors() -> None:
    """Xavier's uniform for every layer, frequencies N(0, 0.2^2)."""
    th.manual_seed(0)
    policy: Any = QSM("MlpPolicy", "Pendulum-v1", device="cpu").policy
    for layer in [policy.critic.layers[1], policy.denoiser.network[2]]:
        bound = (6.0 / 1024) ** 0.5
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
        assert not layer.bias.any()
    assert policy.denoiser.frequencies.std().item() == pytest.approx(0.2, rel=0.4)
    assert th.equal(policy.critic.layers[0].weight, policy.critic_target.layers[0].weight)


def test_the_loss_is_the_one_written_out(model: Any) -> None:
    batch = random_batch(model)
    model._n_updates = 1
    th.manual_seed(2)
    (loss,) = model._after_td_step(batch, th.zeros(2, 8, 1), batch.actions)

    th.manual_seed(2)
    t, z = th.randint(5, (8,)), th.randn(8, 1)
    alpha_bar = variance_preserving_schedule(5)[t, None].float()
    noisy = (alpha_bar.sqrt() * batch.actions + (1 - alpha_bar).sqrt() * z).requires_grad_()
    gradients = [th.autograd.grad(model.critic(batch.observations, noisy)[index].sum(), noisy)[0] for index in range(2)]
    denoiser = model.policy.denoiser
    angles = 2 * th.pi * t[:, None] * denoiser.frequencies
    embedding = denoiser.time_network(th.cat([angles.cos(), angles.sin()], dim=1))
    hidden = F.mish(denoiser.network[0](th.cat([batch.observations, noisy, embedding], dim=1)))
    errors = denoiser.network[2](hidden) + 50 * 0.5 * (gradients[0] + gradients[1])
    assert loss.value.item() == pytest.approx(errors.square().mean().item(), rel=1e-5)


@pytest.mark.parametrize(("delay", "expected"), [(1, [True] * 4), (2, [True, False] * 2)])
def test_the_denoiser_learns_at_every_update_unless_it_is_delayed(delay: int, expected: list[bool]) -> None:
    model = QSM("MlpPolicy", "Pendulum-v1", policy_delay=delay, **TINY | dict(learning_starts=1_000)).learn(30)
    names = ["denoiser.network.0.weight", "denoiser.frequencies", "critic.layers.0.weight"]
    assert what_changes(model, names, 4) == [[due, due, True] for due in expected]


def test_targets_follow_by_tau_at_every_update(model: Any) -> None:
    """From 0 to 1 after 1,000: 0.993346."""
    for parameter, target in zip(model.critic.parameters(), model.critic_target.parameters(), strict=True):
        parameter.data.fill_(1.0)
        target.data.fill_(0.0)
    assert model.target_update_interval == 1
    for _ in range(1_000):
        model._update_targets()
    assert model.critic_target.layers[0].weight.mean().item() == pytest.approx(0.993346, abs=1e-5)


def test_the_learning_rate_of_the_denoiser_falls_along_a_cosine(model: Any) -> None:
    found = []
    for updates in (0, 500_000, 1_000_000, 2_000_000, 3_000_000):
        model._n_updates = updates
        found.append(model._learning_rates()["actor"])
    assert found == pytest.approx([3e-4, 3e-4 * (0.5 + 0.125**0.5), 1.5e-4, 0.0, 0.0], abs=1e-12)
    assert model._learning_rates()["critic"] == 3e-4


def test_actions_that_are_stored_have_noise_and_stay_in_the_box() -> None:
    """Against the same chains without: their difference has a standard deviation of 0.1."""
    model: Any = QSM("MlpPolicy", "Pendulum-v1", **TINY | dict(learning_starts=0))
    model.policy.draw = lambda features: (th.zeros(1, 1), th.zeros(4, 1, 1))
    model.policy.denoiser.given = lambda features: lambda x, t: th.zeros_like(x)
    model._last_obs = np.zeros((1, 3), dtype=np.float32)
    actions, scaled = zip(*(model._sample_action(0) for _ in range(500)), strict=True)
    assert np.std(scaled) == pytest.approx(0.1, rel=5 / (2 * 500) ** 0.5)
    np.testing.assert_allclose(np.stack(actions), 2 * np.stack(scaled), rtol=1e-6)
    model.noise_scale = 10.0
    assert max(np.abs(model._sample_action(0)[1]).max() for _ in range(100)) == 1.0


@pytest.mark.parametrize("argument", ["gradient_scale", "noise_scale", "decay_updates"])
def test_bad_values_are_refused_by_name(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}=-1"):
        QSM("MlpPolicy", "Pendulum-v1", **TINY | {argument: -1})
