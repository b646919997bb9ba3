"""Returns that scores are normalised by, and numbers published elsewhere, each with its source."""

import math
from pathlib import Path
from typing import Annotated

import msgspec

#: The file that comes with the package.
REFERENCES = Path(__file__).with_name("references.yml")


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A return that others are measured by, and where it comes from."""

    value: float
    source: Annotated[str, msgspec.Meta(min_length=1)]


class Normalizer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The returns of a task that count as 0 (uniformly random actions) and as 100 (a good agent)."""

    random: Anchor
    reference: Anchor

    def __post_init__(self) -> None:
        low, high = self.random.value, self.reference.value
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"random={low} and reference={high} must be finite, and the reference above")

    def score(self, value: float) -> float:
        """100 * (value - random) / (reference - random)."""
        return 100 * (value - self.random.value) / (self.reference.value - self.random.value)


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number that others have published."""

    method: str
    metric: str
    #: Environments' ids that it is about; none if it is an aggregate.
    tasks: tuple[str, ...]
    value: str | float
    #: Environment steps, seeds and the like.
    budget: str
    source: str


class References(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file; normalizers by environment's id."""

    normalizers: dict[str, Normalizer]
    published: tuple[Published, ...]


def load_references(path: Path = REFERENCES) -> References:
    """The content of a YAML file; ValueError, naming where, if it says something else."""
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=References)
    except (OSError, msgspec.MsgspecError) as error:
        raise ValueError(f"{path} is no file of references: {error}.") from error
