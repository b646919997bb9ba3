"""Files of figures. The same figure gives the same file."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> str:
    """Write a figure in the format of the file's suffix, and return the file's name."""
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with mpl.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata=metadata, dpi=dpi)
    return path.name


def save_svg_and_png(figure: Figure, folder: Path, name: str, dpi: int = 100) -> None:
    """Write a figure in both formats; ``name`` has no suffix, and ``dpi`` is also that of dots and maps in the SVG."""
    for suffix in (".svg", ".png"):
        save_figure(figure, folder / f"{name}{suffix}", dpi)
