"""Style of the operations in figures, and saving of figures."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from ruas_mm.search.operations import Operation
from ruas_mm.utils.fileio import atomic_write

# Style of each kind of operation: notation in Table I, colour, and colour map of its shades (small to large kernels).
KINDS: dict[str, tuple[str, str, str]] = {
    'skip connection': ('SC', '#6b6b6b', 'Greys'),
    'convolution': ('k-C', '#1f6fb4', 'Blues'),
    'residual convolution': ('k-RC', '#d1520b', 'Oranges'),
    'dilated convolution': ('k-d-DC', '#16804a', 'Greens'),
    'residual dilated convolution': ('k-d-RDC', '#8a3ea8', 'Purples'),
}


def kind_of(operation: Operation) -> str:
    """Return the kind of an operation, a key of ``KINDS``.

    Args:
        operation (Operation): Any operation.

    Returns:
        str: Name of the kind.
    """
    if operation.kernel == 0:
        return 'skip connection'
    return 'residual ' * operation.residual + 'dilated ' * (operation.dilation > 1) + 'convolution'


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure to a file atomically.

    Args:
        figure (Figure): The figure.
        path (str | Path): File to write; its suffix selects the format (png, pdf, svg, …), by default png.

    Raises:
        ValueError: If the format is unknown.
        OSError: If the file cannot be written.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format=Path(path).suffix[1:].lower() or 'png', dpi=200)
    atomic_write(path, stream.getvalue())
