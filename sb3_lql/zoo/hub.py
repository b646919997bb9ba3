"""What the RL Zoo 2.9 needs of the Hugging Face Hub's packages, and does not find there."""

import importlib
from pathlib import Path
from typing import Any

import huggingface_sb3
from huggingface_hub import repocard
from huggingface_hub.errors import EntryNotFoundError
from requests.exceptions import HTTPError

# Not `from huggingface_sb3 import push_to_hub`, which is the function of that name
push_to_hub: Any = importlib.import_module("huggingface_sb3.push_to_hub")
download = huggingface_sb3.load_from_hub
save_metadata = repocard.metadata_save


def repair() -> None:
    """Make the RL Zoo's ``push_to_hub`` and ``load_from_hub`` work with our algorithms and today's packages."""
    if not hasattr(push_to_hub, "generate_metadata"):
        push_to_hub.generate_metadata = _generate_metadata
    huggingface_sb3.load_from_hub = _load_from_hub
    repocard.metadata_save = _save_metadata


def _generate_metadata(model_name: str, env_id: str, mean_reward: float, std_reward: float) -> dict[str, Any]:
    """Since 3.2, ``huggingface_sb3`` has it under another name only, with a card's data instead of a dictionary."""
    metadata: dict[str, Any] = push_to_hub._generate_metadata(model_name, env_id, mean_reward, std_reward).to_dict()
    return metadata


def _load_from_hub(repo_id: str, filename: str) -> str:
    """The RL Zoo tries for a file that need not exist, and expects the error of a package no longer used for it."""
    try:
        return download(repo_id, filename)
    except EntryNotFoundError as error:
        raise HTTPError(str(error)) from error


def _save_metadata(local_path: str | Path, data: dict[str, Any]) -> None:
    """The commands on the RL Zoo's model card do not know our algorithms; ours do."""
    card = Path(local_path)
    text = card.read_text(encoding="utf-8")
    text = text.replace("python -m rl_zoo3.", "sb3-lql ").replace("pip install rl_zoo3", "pip install sb3_lql[zoo]")
    card.write_text(text, encoding="utf-8")
    save_metadata(card, data)
