"""What arrays of zones say of themselves: attributes of three conventions, and that pixels are synthetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from catalog_builder import __version__
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import PIXEL

NOTE = (
    "Synthetic pixels, made up by tessera-stac sample for trying out and testing software. Not TESSERA data."
)

SOURCES = tuple(f"https://sentinel.esa.int/web/sentinel/missions/sentinel-{n}" for n in (1, 2))
"""What upstream's embeddings were computed from, as its stores say it."""
_RAW = "https://raw.githubusercontent.com"
_SPATIAL = {
    "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    "schema_url": f"{_RAW}/zarr-conventions/spatial/refs/tags/v0.1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/spatial/blob/v0.1/README.md",
    "name": "spatial",
    "description": "Spatial coordinate information",
}
_PROJ = {
    "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "schema_url": f"{_RAW}/zarr-conventions/proj/refs/tags/v0.1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/proj/blob/v0.1/README.md",
    "name": "proj",
    "description": "Coordinate reference system information for geospatial data",
}


def grid(group: ZoneGroup, dimensions: tuple[str, str]) -> dict[str, Any]:
    """Return the attributes of a group by the conventions ``proj:`` and ``spatial:``.

    Parameters
    ----------
    dimensions
        Names of the axes of rows and columns.
    """
    return {
        "spatial:dimensions": list(dimensions),
        "spatial:bbox": list(group.bbox),
        "spatial:transform_type": "affine",
        "spatial:transform": [PIXEL, 0.0, float(group.west), 0.0, -PIXEL, float(group.top)],
        "spatial:shape": [group.rows, group.cols],
        "spatial:registration": "pixel",
        "proj:code": f"EPSG:{group.epsg}",
        "zarr_conventions": [_SPATIAL, _PROJ],
    }


def root(
    dataset: Dataset,
    ref: str = "refs/tags/v1",
    source_data: Sequence[str] = SOURCES,
    nodata: str = "+inf",
) -> dict[str, Any]:
    """Return the attributes of the root group by the convention ``geoemb:``, and a notice if it is synthetic.

    Parameters
    ----------
    dataset
        Whose embeddings these are.
    ref
        Which version of the convention the store refers to: ``refs/tags/v1`` or a commit.
    source_data
        What upstream's embeddings were computed from.
    nodata
        The scale of pixels that were not filled, ``+inf`` or ``NaN``.
    """
    convention = "geo-embeddings/embeddings-zarr-convention"
    return {
        "zarr_conventions": [
            {
                "uuid": "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
                "name": "geoemb:",
                "description": "Geoembeddings convention for geospatial embedding arrays with model"
                " provenance",
                "spec_url": f"https://github.com/{convention}/blob/{ref.rpartition('/')[2]}/README.md",
                "schema_url": f"{_RAW}/{convention}/{ref}/schema.json",
            }
        ],
        "geoemb:type": "pixel",
        "geoemb:dimensions": N_BANDS,
        "geoemb:model": f"https://geotessera.org/model/{dataset.version}",
        "geoemb:source_data": list(source_data),
        "geoemb:data_type": "int8",
        "geoemb:gsd": PIXEL,
        "geoemb:spatial_layout": "utm_zones",
        "geoemb:build_version": f"tessera-stac {__version__}",
        "geoemb:quantization": {
            "method": "per_pixel_scale",
            "original_dtype": "float32",
            "quantized_dtype": "int8",
            "scale": {"type": "array", "array_name": "scales", "nodata": nodata},
        },
        **({"tessera:synthetic": True, "description": NOTE} if dataset.is_synthetic else {}),
    }
