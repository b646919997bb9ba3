"""The chain without any of the shortcuts, for tests to compare with."""

from typing import Any

import torch as th


def plain_chain(model: Any, obs: th.Tensor, actions: th.Tensor, noise: th.Tensor) -> th.Tensor:
    """The chain as the paper and the authors' code describe it, one critic and one step at a time."""
    sampler, w = model.policy.sampler, model.inverse_temperature
    step = 0
    for level, alpha in enumerate(sampler.step_sizes.tolist()):
        for _ in range(sampler.n_steps):
            actions = actions.detach().requires_grad_()
            noise_level = (th.full((len(obs),), level),) if sampler.noise_conditioned else ()
            q_values = model.policy.critic(obs, actions, *noise_level)
            (score,) = th.autograd.grad(sum(q.sum() for q in q_values), actions)
            if model.normalize_score:
                score = score / (score.norm(dim=1, keepdim=True) + 1e-8)
            actions = (actions + alpha / 2 * w * score + alpha**0.5 * noise[step]).clamp(-1, 1)
            step += 1
    assert step == len(noise)
    return actions.detach()
