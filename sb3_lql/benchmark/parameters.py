"""How many parameters an agent learns."""

from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

#: Attributes of policies that hold networks that learn, SB3's and ours; targets are copies of them.
NETWORKS = ("actor", "denoiser", "critic")


def count_parameters(model: BaseAlgorithm) -> dict[str, int]:
    """The numbers that optimisers change in each network of an agent; a temperature is none of them."""
    networks = {name: getattr(model.policy, name, None) for name in NETWORKS}
    return {
        name: sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        for name, network in networks.items()
        if isinstance(network, nn.Module)
    }
