"""What scores are normalised by is a number with a source."""

from pathlib import Path

import pytest
import yaml

from sb3_lql.benchmark.comparison.references import Anchor, Normalizer, Published, load_references

#: The paper's tasks (section 6.2).
TASKS = {"HalfCheetah", "Walker2d", "Humanoid", "Hopper", "Ant", "Swimmer", "Pusher", "Reacher"}
TASKS |= {"InvertedDoublePendulum"}
ENTRY = {"random": {"value": -40, "source": "measured"}, "reference": {"value": -4.0, "source": "a paper"}}
PUBLISHED = {"method": "SAC", "metric": "score", "tasks": [], "value": 71.3, "budget": "1M", "source": "table 1"}


def write(path: Path, normalizers: object, published: object) -> Path:
    """A file of references."""
    path.write_text(yaml.safe_dump({"normalizers": normalizers, "published": published}))
    return path


def test_packaged_references_have_all_tasks_of_the_paper() -> None:
    references = load_references()
    assert {f"{task}-v5" for task in TASKS} <= set(references.normalizers)
    assert references.published


def test_references_are_read_with_their_sources(tmp_path: Path) -> None:
    references = load_references(write(tmp_path / "references.yml", {"Reacher-v5": ENTRY}, [PUBLISHED]))
    assert references.normalizers == {"Reacher-v5": Normalizer(Anchor(-40, "measured"), Anchor(-4, "a paper"))}
    assert references.published == (Published("SAC", "score", (), 71.3, "1M", "table 1"),)


def test_score_is_0_at_random_and_100_at_the_reference() -> None:
    normalizer = Normalizer(Anchor(-40, "measured"), Anchor(-4, "a paper"))
    assert [normalizer.score(value) for value in (-40, -22, -4, 32)] == [0, 50, 100, 200]


@pytest.mark.parametrize(
    "entry",
    [
        {"random": ENTRY["random"]},
        ENTRY | {"random": {"value": -40, "source": ""}},
        ENTRY | {"random": {"value": "many", "source": "measured"}},
        ENTRY | {"random": {"value": float("nan"), "source": "measured"}},
        ENTRY | {"random": {"value": -4, "source": "measured"}},
        None,
    ],
)
def test_normalizer_that_is_none_is_refused(tmp_path: Path, entry: object) -> None:
    with pytest.raises(ValueError, match=r"references\.yml"):
        load_references(write(tmp_path / "references.yml", {"Reacher-v5": entry}, []))


@pytest.mark.parametrize("published", [None, [{"method": "SAC"}], [PUBLISHED | {"year": 2026}]])
def test_published_number_without_its_circumstances_is_refused(tmp_path: Path, published: object) -> None:
    with pytest.raises(ValueError, match=r"references\.yml is no file of references"):
        load_references(write(tmp_path / "references.yml", {}, published))
