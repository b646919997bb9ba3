"""Q-values of actions in the environment's units."""

from typing import Any

import numpy as np
import torch as th

from sb3_lql.engine.policy import ChainPolicy


def lowest_q_value(policy: ChainPolicy, observation: np.ndarray | dict[str, np.ndarray], action: np.ndarray) -> Any:
    """
    :param policy: a policy
    :param observation: one observation or a batch, as for ``predict``
    :param action: as many actions, within the action space's own bounds
    :return: the smallest of the critics, at the last noise level; shape (batch,), or () for one observation
    :raises ValueError: if actions have another shape, lie out of bounds, or are not as many as observations
    """
    policy.set_training_mode(False)
    obs, vectorized = policy.obs_to_tensor(observation)
    box = policy.action_space
    action, shape = np.asarray(action), box.shape
    if action.shape not in (shape, action.shape[:1] + shape):
        raise ValueError(f"action has shape {action.shape}: pass {shape}, or (batch, *{shape}).")
    if not ((box.low <= action) & (action <= box.high)).all():
        raise ValueError(f"action={action} lies outside {box}: pass actions within its bounds.")
    scaled = policy.scale_action(action.reshape(-1, *shape))
    actions = th.as_tensor(scaled.reshape(len(scaled), -1), device=policy.device)
    with th.no_grad():
        features = policy.critic.features(obs)
        if len(features) != len(actions):
            raise ValueError(f"action holds {len(actions)} actions for {len(features)} observations: pass as many.")
        q_values = policy.critic.lowest_q_values(features, actions).squeeze(1).cpu().numpy()
    return q_values if vectorized else q_values.squeeze(0)
