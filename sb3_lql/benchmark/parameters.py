"""How many parameters an agent learns."""

from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

#: Attributes of policies that hold networks that learn, SB3's and ours; targets are copies of them.
NETWORKS = ("actor", "denoiser", "critic")


def count_parameters(model: BaseAlgorithm) -> dict[str, int]:
    """The numbers that optimisers change in each network of an agent; a temperature is none of them."""
    counts: dict[str, int] = {}
    counted: set[nn.Parameter] = set()  # networks of SB3's may share a features extractor
    for name in NETWORKS:
        if isinstance(network := getattr(model.policy, name, None), nn.Module):
            own = {parameter for parameter in network.parameters() if parameter.requires_grad} - counted
            counts[name] = sum(parameter.numel() for parameter in own)
            counted |= own
    return counts
