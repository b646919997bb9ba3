"""What the RL Zoo needs of the Hugging Face Hub integration."""

import importlib
from typing import Any

# Not `from huggingface_sb3 import push_to_hub`, which is the function of that name
hub: Any = importlib.import_module("huggingface_sb3.push_to_hub")


def provide_generate_metadata() -> None:
    """
    Give ``huggingface_sb3`` the function ``generate_metadata`` that the RL Zoo 2.9 imports from it.

    Since its version 3.2 it has the function under another name only, with a card's data instead of a dictionary.
    """
    if not hasattr(hub, "generate_metadata"):
        hub.generate_metadata = _generate_metadata


def _generate_metadata(model_name: str, env_id: str, mean_reward: float, std_reward: float) -> dict[str, Any]:
    metadata: dict[str, Any] = hub._generate_metadata(model_name, env_id, mean_reward, std_reward).to_dict()
    return metadata
