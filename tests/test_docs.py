"""What the documentation shows is what its results files hold."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rl_zoo3")

from sb3_lql.benchmark.bandit.distances import distance_table
from sb3_lql.benchmark.bandit.measures import mode_table
from sb3_lql.benchmark.bandit.runs import NAMES

DOCS = Path(__file__).parents[1] / "docs"
if not DOCS.is_dir():
    pytest.skip("no documentation beside these tests", allow_module_level=True)


def read(name: str) -> Any:
    return json.loads((DOCS / "bandit" / name).read_text())


def test_bandit_page_shows_the_measures_of_all_runs() -> None:
    runs = read("runs.json")
    assert [(run["algo"], run["seed"]) for run in runs] == [
        (algo, seed) for algo in NAMES for seed in (100, 200, 300, 400, 500)
    ]
    table = mode_table([(f"{NAMES[run['algo']]}, seed {run['seed']}", run) for run in runs])
    assert table in (DOCS / "bandit.md").read_text()
    assert (DOCS / "bandit" / "tables.md").read_text().startswith(table)


def test_bandit_page_shows_all_distances() -> None:
    page = (DOCS / "bandit.md").read_text()
    for distances in read("distances.json").values():
        assert distance_table(distances) in page


def test_bandit_page_shows_the_chains_with_a_perfect_critic() -> None:
    page = (DOCS / "bandit.md").read_text()
    assert (DOCS / "bandit" / "chains.md").read_text() in page
    *_, nclql, lql = (DOCS / "bandit" / "tables.md").read_text().split("\n\n")[0].splitlines()
    assert nclql in page
    assert lql in page


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_pictures_and_files_that_a_page_links_to_exist(page: Path) -> None:
    for target in page.read_text().split("](")[1:]:
        path = target.split(")")[0].split("#")[0]
        if path and not path.startswith("http"):
            assert (page.parent / path).exists(), path
