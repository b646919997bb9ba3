"""Returns that scores are normalised by, and numbers published elsewhere, each with its source."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

#: The file that comes with the package.
REFERENCES = Path(__file__).with_name("references.yml")


@dataclass(frozen=True)
class Anchor:
    """
    A return that others are measured by.

    :param value: the return
    :param source: where it comes from
    """

    value: float
    source: str


@dataclass(frozen=True)
class Normalizer:
    """
    The returns of a task that count as 0 and as 100.

    :param random: return of uniformly random actions
    :param reference: return of a good agent
    """

    random: Anchor
    reference: Anchor

    def score(self, value: float) -> float:
        """
        :param value: a return
        :return: 100 * (value - random) / (reference - random)
        """
        return 100 * (value - self.random.value) / (self.reference.value - self.random.value)


@dataclass(frozen=True)
class Published:
    """
    A number that others have published.

    :param method: the algorithm
    :param metric: what was measured
    :param tasks: environments' ids that it is about; none if it is an aggregate
    :param value: the number as it was published
    :param budget: environment steps, seeds and the like
    :param source: where it was published
    """

    method: str
    metric: str
    tasks: tuple[str, ...]
    value: str
    budget: str
    source: str


@dataclass(frozen=True)
class References:
    """
    The content of the file.

    :param normalizers: by environment's id
    :param published: numbers published elsewhere
    """

    normalizers: dict[str, Normalizer]
    published: tuple[Published, ...]


def load_references(path: Path = REFERENCES) -> References:
    """
    :param path: a YAML file with ``normalizers`` and ``published``
    :return: its content
    :raises ValueError: if the file says something else
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        normalizers = {
            task: Normalizer(
                _anchor(f"{task}: random", entry["random"]), _anchor(f"{task}: reference", entry["reference"])
            )
            for task, entry in content["normalizers"].items()
        }
        published = tuple(_published(entry) for entry in content["published"])
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no file of references: {error!r}.") from error
    for task, normalizer in normalizers.items():
        if normalizer.random.value >= normalizer.reference.value:
            raise ValueError(f"{path}: {task}: the reference must be above the return of random actions.")
    return References(normalizers, published)


def _anchor(name: str, entry: dict[str, Any]) -> Anchor:
    value, source = float(entry["value"]), str(entry["source"] or "")
    if not math.isfinite(value) or not source:
        raise ValueError(f"{name} needs a finite value and a source")
    return Anchor(value, source)


def _published(entry: dict[str, Any]) -> Published:
    texts = {name: str(value) for name, value in entry.items() if name != "tasks"}
    return Published(tasks=tuple(entry["tasks"]), **texts)
