"""What is drawn over an image of a region: its outline, and a scale bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from pyproj import Geod, Transformer
from shapely.geometry.base import BaseGeometry

from catalog_builder.tile.regions.crs import MAX_EDGE, project

if TYPE_CHECKING:
    from PIL import Image

Rings = list[npt.NDArray[np.float64]]
"""Lines of (n, 2) coordinates."""
_LIGHT, _DARK = (255, 255, 255, 255), (17, 24, 39, 255)
_BACKING = (17, 24, 39, 170)
_SMALLEST = 48
"""Pixels: on a smaller image a scale bar would cover what it is about."""


class ScaleBar(NamedTuple):
    """A bar of a round length."""

    metres: int
    pixels: float

    @property
    def label(self) -> str:
        """Its length, in words."""
        return f"{self.metres // 1000} km" if self.metres >= 1000 else f"{self.metres} m"


def scale_bar(metres_per_pixel: float, most: float) -> ScaleBar:
    """Return the longest bar of 1, 2 or 5 times a power of ten metres that is at most so many pixels long.

    >>> scale_bar(12.0, 100)
    ScaleBar(metres=1000, pixels=83.33333333333333)
    """
    longest = max(most * metres_per_pixel, 1.0)
    power = 10 ** math.floor(math.log10(longest))
    metres = next(n * power for n in (5, 2, 1) if n * power <= longest * (1 + 1e-9))
    return ScaleBar(metres, metres / metres_per_pixel)


def metres_per_degree(lat: float) -> float:
    """Return the length of a degree of longitude on the ground, at a latitude, on WGS84."""
    length: float = Geod(ellps="WGS84").inv(0, lat, 0.001, lat)[2]
    return length * 1000


def shape_of(region: BaseGeometry) -> BaseGeometry | None:
    """Return the polygons of a region, in metres of EPSG:3857; None of one that is its bounding box."""
    if region.geom_type not in ("Polygon", "MultiPolygon") or region.equals(region.envelope):
        return None
    return project(
        shapely.segmentize(region, MAX_EDGE), Transformer.from_crs("OGC:CRS84", 3857, always_xy=True)
    )


def outside(shape: BaseGeometry, transform: Affine, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return which pixels, (rows, cols), a shape does not touch."""
    from rasterio.features import geometry_mask

    found: npt.NDArray[np.bool_] = geometry_mask([shape], size, transform, all_touched=True)
    return found


def rings_of(shape: BaseGeometry, within: tuple[float, float, float, float], detail: float) -> Rings:
    """Return the outline of a shape as lines, as far as an image shows it.

    Parameters
    ----------
    shape
        Polygons.
    within
        West, south, east, north of the image, in the shape's units.
    detail
        Smaller details than this are left out.
    """
    west, south, east, north = within
    shown = shapely.clip_by_rect(shape.boundary, west - detail, south - detail, east + detail, north + detail)
    lines = shapely.get_parts(shapely.line_merge(shown.simplify(detail / 2)))
    return [shapely.get_coordinates(line) for line in lines]


def drawn_over(
    pixels: npt.NDArray[np.uint8], rings: Sequence[npt.NDArray[np.float64]], metres_per_pixel: float
) -> npt.NDArray[np.uint8]:
    """Return an image with lines and a scale bar drawn over it.

    Parameters
    ----------
    pixels
        Red, green, blue, alpha: uint8 (rows, cols, 4).
    rings
        Lines in pixels from the upper left corner: column, row.
    metres_per_pixel
        On the ground.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(pixels, "RGBA")
    height, width = pixels.shape[:2]
    draw = ImageDraw.Draw(image)
    thin = max(1, round(max(width, height) / 600))
    for colour, line_width in ((_DARK, 3 * thin), (_LIGHT, thin)):
        for ring in rings:
            draw.line([tuple(point) for point in ring.tolist()], colour, line_width, joint="curve")
    if min(width, height) >= _SMALLEST:
        image = _with_bar(image, metres_per_pixel)
    return np.asarray(image)


def _with_bar(image: Image.Image, metres_per_pixel: float) -> Image.Image:
    """Return an image with a scale bar in its lower left corner."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = image.size
    bar = scale_bar(metres_per_pixel, width / 3)
    size = min(max(9, min(width, height) // 32), 28)
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(bar.label)
    gap, thick = max(2, size // 3), max(2, size // 5)
    length = round(bar.pixels)
    box_width = math.ceil(max(length, right - left)) + 2 * gap
    box_height = math.ceil(bottom - top) + thick + 3 * gap
    over = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(over)
    x, y = gap, height - gap - box_height
    draw.rounded_rectangle((x, y, x + box_width - 1, y + box_height - 1), gap, _BACKING)
    draw.text((x + gap - left, y + gap - top), bar.label, _LIGHT, font)
    rule = y + box_height - gap - thick
    draw.rectangle((x + gap, rule, x + gap + length - 1, rule + thick - 1), _LIGHT)
    return Image.alpha_composite(image, over)
