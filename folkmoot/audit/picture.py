"""The picture of an inversion: originals above, and what was read off updates below."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from folkmoot.core.errors import SettingsError
from folkmoot.data.picture import keep_out_of_home

_INCH = 1.1


def draw(rows: Mapping[str, Tensor]) -> Any:
    """Return a figure with a row of images for each title.

    Args:
        rows: Title -> images, (examples, height, width) or (examples, channels, height, width), of
            which the first channel is shown; each with a scale of grey of its own.

    Raises:
        SettingsError: If rows are empty, or not equally long.
    """
    lengths = {len(images) for images in rows.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise SettingsError(
            "A picture needs rows of equally many images, but these are "
            f"{ ({title: len(images) for title, images in rows.items()}) }."
        )
    keep_out_of_home()
    from matplotlib.figure import Figure

    [columns] = lengths
    size = (_INCH * columns + 2.2, _INCH * len(rows))
    figure = Figure(figsize=size, dpi=120, layout="constrained", facecolor="white")
    every = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (title, images) in zip(every, rows.items(), strict=True):
        for place, image in zip(axes, images, strict=True):
            shown = image[0] if image.dim() == 3 else image
            place.imshow(shown.detach().numpy(), cmap="gray_r")
            place.set_xticks([])
            place.set_yticks([])
            place.spines[:].set_color("#c8ccd2")
        axes[0].set_ylabel(title, rotation=0, ha="right", va="center", labelpad=8, fontsize=9)
    return figure
