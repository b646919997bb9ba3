"""Colours and line styles of algorithms, the same in every figure."""

from matplotlib.colors import to_hex, to_rgb
from matplotlib.typing import LineStyleType

#: Colour of each algorithm by its name on the command line, of Okabe and Ito's and Tol's colours for the colour-blind.
COLOURS = {
    "nclql": "#0072B2",
    "lql": "#009E73",
    "sac": "#D55E00",
    "td3": "#CC79A7",
    "tqc": "#E69F00",
    "qsm": "#332288",
    "dipo": "#999933",
    "dacer": "#882255",
    "qvpo": "#44AA99",
    "sdac": "#117733",
    "dpmd": "#DDCC77",
    "mvp": "#000000",
}
#: Of algorithms that are not ours.
OTHERS = "#7F7F7F"
#: Of what bears the algorithm's own name; variants are told apart by the others, then by paler shades of its colour.
OWN_LINE_STYLE: LineStyleType = "-"
LINE_STYLES: tuple[LineStyleType, ...] = ("--", ":", "-.", (0, (3, 1, 1, 1, 1, 1)))
SHADES = (1.0, 0.6, 0.35, 0.2)
#: A colour and a line style.
Look = tuple[str, LineStyleType]


def looks(algos: dict[str, str]) -> dict[str, Look]:
    """
    :param algos: names on the command line, by label
    :return: a look for each label, all different as long as shades and styles last; that of an algorithm under its own
        name does not depend on what else is shown
    """
    found: dict[str, Look] = {}
    for label, algo in algos.items():
        colour = COLOURS.get(algo.removeprefix("compared"), OTHERS)
        choices = [(_paler(colour, shade), style) for shade in SHADES for style in LINE_STYLES]
        if label.replace("-", "").lower() == algo:
            choices.insert(0, (colour, OWN_LINE_STYLE))
        found[label] = next((look for look in choices if look not in found.values()), choices[-1])
    return found


def _paler(colour: str, shade: float) -> str:
    """A mixture with white."""
    red, green, blue = (1.0 - shade * (1.0 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue)).upper()
