"""Returns that scores are normalised by, and numbers published elsewhere, each with its source."""

import math
from pathlib import Path
from typing import Annotated

import msgspec

#: The file that comes with the package.
REFERENCES = Path(__file__).with_name("references.yml")


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    A return that others are measured by.

    :param value: the return
    :param source: where it comes from
    """

    value: float
    source: Annotated[str, msgspec.Meta(min_length=1)]


class Normalizer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    The returns of a task that count as 0 and as 100.

    :param random: return of uniformly random actions
    :param reference: return of a good agent
    """

    random: Anchor
    reference: Anchor

    def __post_init__(self) -> None:
        low, high = self.random.value, self.reference.value
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"random={low} and reference={high} must be finite, and the reference above")

    def score(self, value: float) -> float:
        """
        :param value: a return
        :return: 100 * (value - random) / (reference - random)
        """
        return 100 * (value - self.random.value) / (self.reference.value - self.random.value)


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
    value: str | float
    budget: str
    source: str


class References(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
    :raises ValueError: if the file says something else, naming where
    """
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=References)
    except (OSError, msgspec.MsgspecError) as error:
        raise ValueError(f"{path} is no file of references: {error}.") from error
