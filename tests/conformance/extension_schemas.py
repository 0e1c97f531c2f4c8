"""What the extensions that our items declare ask of their fields, as JSON schemas by address.

Written by us from the extensions' documents, and only for the fields that we use: another field of
their prefixes is refused, so that nobody adds one that is not checked.
"""

from __future__ import annotations

from typing import Any

_NUMBER: dict[str, Any] = {"type": "number"}


def _numbers(*lengths: int) -> dict[str, Any]:
    return {
        "type": "array",
        "items": _NUMBER,
        "oneOf": [{"minItems": n, "maxItems": n} for n in lengths],
    }


def _schema(address: str, prefix: str, fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a schema that checks the fields of a prefix in properties, assets and their bands."""
    checked: dict[str, Any] = {
        "properties": fields,
        "propertyNames": {"anyOf": [{"enum": list(fields)}, {"not": {"pattern": f"^{prefix}:"}}]},
    }
    asset = {"type": "object", "allOf": [checked], "properties": {"bands": {"items": checked}}}
    assets = {"type": "object", "additionalProperties": asset}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": address,
        "type": "object",
        "required": ["type", "stac_extensions"],
        "properties": {
            "type": {"enum": ["Feature", "Collection"]},
            "stac_extensions": {"type": "array", "contains": {"const": address}},
            "properties": checked,
            "assets": assets,
            "item_assets": assets,
        },
    }


_PROJECTION = {
    "proj:code": {"type": ["string", "null"], "pattern": "^[A-Z][A-Z0-9]*:[A-Za-z0-9]+$"},
    "proj:bbox": _numbers(4, 6),
    "proj:shape": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
    "proj:transform": _numbers(6, 9),
}
_BYTES = {"type": "integer", "minimum": 0}
_FILE = {
    "file:size": _BYTES,
    "file:header_size": _BYTES,
    # A multihash: here always SHA2-256, code 12, of 20 (hexadecimal) bytes.
    "file:checksum": {"type": "string", "pattern": "^1220[0-9a-f]{64}$"},
}
_RASTER = {
    "raster:bands": {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "properties": {
                "nodata": {"anyOf": [_NUMBER, {"enum": ["nan", "inf", "-inf"]}]},
                "data_type": {"enum": ["int8", "uint8", "int16", "uint16", "float32", "float64"]},
                "sampling": {"enum": ["area", "point"]},
                "spatial_resolution": {"type": "number", "exclusiveMinimum": 0},
                "scale": _NUMBER,
                "offset": _NUMBER,
                "unit": {"type": "string"},
            },
        },
    }
}

_MAP_LINK = {
    "if": {"properties": {"rel": {"const": "xyz"}}},
    # Viewers put numbers for these; other placeholders would need fields that we do not use.
    "then": {
        "properties": {
            "href": {"pattern": r"^[^{}]*\{z\}/\{x\}/\{y\}[^{}]*$"},
            "type": {"const": "image/png"},
        }
    },
}
_MAP_RELS = ("xyz", "tilejson")


def _map_links(address: str) -> dict[str, Any]:
    """Return a schema that wants a map link, and checks those there are."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": address,
        "type": "object",
        "required": ["type", "stac_extensions", "links"],
        "properties": {
            "type": {"enum": ["Feature", "Collection", "Catalog"]},
            "stac_extensions": {"type": "array", "contains": {"const": address}},
            "links": {
                "contains": {"properties": {"rel": {"enum": list(_MAP_RELS)}}},
                "items": {"allOf": [_MAP_LINK], "not": {"properties": {"rel": {"enum": ["wms", "wmts"]}}}},
            },
        },
    }


_ALTERNATE_PLACES = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {
        "type": "object",
        "required": ["href"],
        "properties": {
            "href": {"type": "string", "minLength": 1},
            "alternate:name": {"type": "string", "minLength": 1},
        },
        "additionalProperties": False,
    },
}
_STORAGE_SCHEME = {
    "type": "object",
    "required": ["type", "platform"],
    "properties": {
        "type": {"enum": ["aws-s3", "custom-s3"]},
        "platform": {"type": "string", "pattern": "^https?://"},
        "bucket": {"type": "string"},
        "region": {"type": "string"},
        "requester_pays": {"type": "boolean"},
    },
    "additionalProperties": False,
}
_STORAGE = {
    "storage:schemes": {"type": "object", "minProperties": 1, "additionalProperties": _STORAGE_SCHEME},
    "storage:refs": {"type": "array", "minItems": 1, "items": {"type": "string"}},
}

_XARRAY = {"xarray:open_kwargs": {"type": "object"}, "xarray:storage_options": {"type": "object"}}

_WEB_MAP_LINKS = "https://stac-extensions.github.io/web-map-links/v1.3.0/schema.json"
SCHEMAS: dict[str, dict[str, Any]] = {_WEB_MAP_LINKS: _map_links(_WEB_MAP_LINKS)}
for _name, _version, _prefix, _fields in (
    ("projection", "v2.0.0", "proj", _PROJECTION),
    # The bands view: the one version of projection that has proj:epsg, with proj:code beside it.
    ("projection", "v1.2.0", "proj", {**_PROJECTION, "proj:epsg": {"type": ["integer", "null"]}}),
    ("file", "v2.1.0", "file", _FILE),
    ("raster", "v1.1.0", "raster", _RASTER),
    ("storage", "v2.0.0", "storage", _STORAGE),
    ("xarray-assets", "v1.0.0", "xarray", _XARRAY),
    ("alternate-assets", "v1.2.0", "alternate", {"alternate": _ALTERNATE_PLACES}),
):
    _address = f"https://stac-extensions.github.io/{_name}/{_version}/schema.json"
    SCHEMAS[_address] = _schema(_address, _prefix, _fields)
