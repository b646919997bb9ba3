"""Compiled chains of one process: each computes with its own model's settings, whichever was compiled before it."""

from functools import partial
from typing import Any

import pytest
import torch as th
from torch import nn

from sb3_lql import LQL, NCLQL
from sb3_lql.common.acceleration import compiled
from sb3_lql.langevin.runner import langevin_chain
from sb3_lql.langevin.sampler import LangevinChain

#: Of chains that stay inside the box, and show whatever is different.
GENTLE: dict[str, Any] = dict(
    normalize_score=False, inverse_temperature=3.0, langevin_step_size=1e-2, n_langevin_steps=2
)
ANNEALED = GENTLE | dict(n_noise_levels=2, sigma_max=0.1, sigma_min=0.05)

#: Of each pair, models that differ in that only.
PAIRS: dict[str, tuple[type[LQL | NCLQL], dict[str, Any], dict[str, Any]]] = {
    "precision": (LQL, GENTLE, GENTLE | dict(bfloat16_chain=True)),
    "normalisation": (LQL, GENTLE, GENTLE | dict(normalize_score=True)),
    "temperature": (LQL, GENTLE, GENTLE | dict(inverse_temperature=50.0)),
    "step sizes": (LQL, GENTLE, GENTLE | dict(langevin_step_size=(1e-1, 1e-2))),
    "chain length": (LQL, GENTLE, GENTLE | dict(n_langevin_steps=4)),
    "levels": (NCLQL, ANNEALED | dict(n_langevin_steps=1), ANNEALED | dict(n_noise_levels=1, n_langevin_steps=2)),
    "noise scales": (NCLQL, ANNEALED, ANNEALED | dict(sigma_max=0.4)),
    "critics": (LQL, GENTLE | dict(policy_kwargs=dict(n_critics=1)), GENTLE | dict(policy_kwargs=dict(n_critics=3))),
    "layers": (LQL, GENTLE | dict(policy_kwargs=dict(net_arch=[16])), GENTLE),
    "activation": (LQL, GENTLE, GENTLE | dict(policy_kwargs=dict(activation_fn=nn.Tanh))),
    "another activation": (
        LQL,
        GENTLE | dict(policy_kwargs=dict(activation_fn=nn.ReLU)),
        GENTLE | dict(policy_kwargs=dict(activation_fn=nn.SiLU)),
    ),
}


def make_model(model_class: Any, arguments: dict[str, Any]) -> LQL | NCLQL:
    policy_kwargs = dict(net_arch=[16, 16]) | arguments.get("policy_kwargs", {})
    model: LQL | NCLQL = model_class(
        "MlpPolicy",
        "Pendulum-v1",
        buffer_size=10,
        seed=0,
        device="cpu",
        **arguments | dict(policy_kwargs=policy_kwargs),
    )
    return model


@pytest.fixture
def compiled_chain(monkeypatch: pytest.MonkeyPatch) -> Any:
    """
    A chain compiled anew, into the operations that it is made of.

    Whether a chain is compiled again for a model is decided before any code is made.
    """
    monkeypatch.setattr(th, "compile", partial(th.compile, backend="eager"))
    return compiled(langevin_chain, batch_dims=dict(features=0, initial_actions=0, noise=1))


@pytest.mark.filterwarnings("ignore:bfloat16_chain", "error:torch.compile failed")
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("pair", PAIRS)
def test_two_models_that_differ_in_one_setting_never_share_a_compiled_chain_that_fits_one_of_them(
    pair: str, backwards: bool, compiled_chain: Any
) -> None:
    model_class, *arguments = PAIRS[pair]
    models = [make_model(model_class, kwargs) for kwargs in arguments]
    features, starts, noise = th.randn(20, 3), 2 * th.rand(20, 1) - 1, th.randn(4, 20, 1)

    def run(chain: Any, model: LQL | NCLQL) -> LangevinChain:
        policy = model.policy
        draws = starts, noise[: policy.sampler.chain_length]
        with th.no_grad():
            result: LangevinChain = chain(policy.sampler, policy.critic, features, *draws, policy.bfloat16_chain)
        return result

    expected = [run(langevin_chain, model) for model in models]
    assert not th.equal(expected[0].actions, expected[1].actions)
    for model, chain in list(zip(models, expected, strict=True))[:: -1 if backwards else 1]:
        found = run(compiled_chain, model)
        assert th.equal(found.actions, chain.actions)
        assert th.equal(found.score_norms, chain.score_norms)


@pytest.mark.filterwarnings("error:torch.compile failed")
def test_a_compiled_chain_follows_settings_that_are_changed(compiled_chain: Any) -> None:
    model = make_model(LQL, GENTLE)
    policy, sampler, critic = model.policy, model.policy.sampler, model.critic
    arguments = th.randn(20, 3), 2 * th.rand(20, 1) - 1, th.randn(4, 20, 1)

    def ends(chain: Any) -> th.Tensor:
        with th.no_grad():
            actions: th.Tensor = chain(sampler, critic, *arguments, policy.bfloat16_chain).actions
        return actions

    seen = [ends(compiled_chain)]
    changes: list[tuple[Any, str, Any]] = [
        (policy, "bfloat16_chain", True),
        (critic.activations, "0", nn.Tanh()),
        (sampler, "normalize_score", True),
        (sampler, "n_steps", 1),
    ]
    for holder, name, value in changes:
        setattr(holder, name, value)
        seen.append(ends(compiled_chain))
        assert not th.equal(seen[-1], seen[-2])
        assert th.equal(seen[-1], ends(langevin_chain))
