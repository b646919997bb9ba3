"""The commands on the Hugging Face Hub, against a folder that stands in for it."""

import os
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

pytest.importorskip("rl_zoo3")

from sb3_lql import NCLQL
from tests.zoo.conftest import python, sb3_lql

REPO = "me/nclql-Pendulum-v1"
AGENT = ("--algo", "nclql", "--env", "Pendulum-v1", "-orga", "me")


def main_with_fake_hub() -> None:
    """As the command ``sb3-lql``, with the folder ``FAKE_HUB`` for the Hugging Face Hub."""
    import huggingface_hub
    from huggingface_hub.errors import RemoteEntryNotFoundError

    from sb3_lql.zoo.cli import main

    repositories = Path(os.environ["FAKE_HUB"])

    def create_repo(api: Any, repo_id: str, **kwargs: Any) -> str:
        (repositories / repo_id).mkdir(parents=True, exist_ok=True)
        return f"https://huggingface.co/{repo_id}"

    def snapshot_download(api: Any, repo_id: str, *, local_dir: Path) -> None:
        shutil.copytree(repositories / repo_id, local_dir, dirs_exist_ok=True)

    def upload_folder(api: Any, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        shutil.copytree(folder_path, repositories / repo_id, dirs_exist_ok=True)

    def hf_hub_download(repo_id: str, filename: str, **kwargs: Any) -> str:
        path = repositories / repo_id / filename
        if not path.is_file():
            raise RemoteEntryNotFoundError(f"404 Client Error: {filename}", response=Mock())
        return str(path)

    package: Any = huggingface_hub
    package.hf_hub_download = hf_hub_download
    package.HfApi.create_repo = create_repo
    package.HfApi.snapshot_download = snapshot_download
    package.HfApi.upload_folder = upload_folder
    main()


def sb3_lql_with_fake_hub(*arguments: str, folder: Path, hub: Path) -> str:
    """Run the command ``sb3-lql`` in a folder, with another for the Hugging Face Hub."""
    code = f"from {__name__} import main_with_fake_hub; main_with_fake_hub()"
    environment = {"FAKE_HUB": str(hub), "TRUST_REMOTE_CODE": "True", "PYTHONPATH": str(Path(__file__).parents[2])}
    return python("-c", code, *arguments, folder=folder, environment=environment)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stands in for the Hub."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def pushed(hub: Path, work_folder: Path, nclql_agent: Path) -> Path:
    """The repository to which the agent was pushed."""
    output = sb3_lql_with_fake_hub("push_to_hub", *AGENT, "-f", "logs", "--no-render", folder=work_folder, hub=hub)
    assert f"https://huggingface.co/{REPO}" in output
    return hub / REPO


def test_push_to_hub_uploads_the_agent_its_configuration_and_its_evaluations(pushed: Path, nclql_agent: Path) -> None:
    uploaded, trained = (NCLQL.load(path, device="cpu") for path in (pushed / "nclql-Pendulum-v1.zip", nclql_agent))
    assert uploaded.num_timesteps == trained.num_timesteps
    for name in ("config.yml", "args.yml"):
        assert (pushed / name).read_bytes() == (nclql_agent.parent / "Pendulum-v1" / name).read_bytes()
    assert (pushed / "train_eval_metrics.zip").is_file()


def test_model_card_names_the_algorithm_the_task_and_the_return(pushed: Path) -> None:
    _, metadata, text = (pushed / "README.md").read_text().split("---\n", maxsplit=2)
    (model,) = yaml.safe_load(metadata)["model-index"]
    (result,) = model["results"]
    assert model["name"] == "NCLQL"
    assert result["dataset"]["name"] == "Pendulum-v1"
    assert result["metrics"][0]["type"] == "mean_reward"
    assert "# **NCLQL** Agent playing **Pendulum-v1**" in text


def test_commands_on_the_model_card_are_ours(pushed: Path) -> None:
    """Those of the RL Zoo do not know our algorithms."""
    text = (pushed / "README.md").read_text()
    for command in ("load_from_hub", "enjoy", "train", "push_to_hub"):
        assert f"\nsb3-lql {command} --algo nclql --env Pendulum-v1 " in text
    assert "python -m" not in text
    assert "pip install rl_zoo3" not in text


def test_load_from_hub_restores_an_agent_that_plays(pushed: Path, hub: Path, tmp_path: Path) -> None:
    output = sb3_lql_with_fake_hub("load_from_hub", *AGENT, "-f", "logs", folder=tmp_path, hub=hub)
    assert "No normalization file" in output
    assert "Warning" not in output
    assert (tmp_path / "logs/nclql/Pendulum-v1_1/evaluations.npz").is_file()
    output = sb3_lql("enjoy", "--env", "Pendulum-v1", "--no-render", "-n", "45", folder=tmp_path)
    assert "2 Episodes" in output
