"""Tables as Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """
    :param header: names of the columns
    :param rows: cells of each row, as many as there are columns
    :return: a Markdown table, with a line break at its end
    """
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, ["---"] * len(header), *rows))
