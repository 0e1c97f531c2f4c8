"""The fields extension: a part of every item.

The item is a template, so fields are excluded by pruning the template once; a page of few fields is
rendered faster than a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalog_builder.item.template import When

DEFAULT = (
    "type", "stac_version", "stac_extensions", "id", "collection", "geometry", "bbox", "links", "assets",
    "properties.datetime", "properties.start_datetime", "properties.end_datetime",
)  # fmt: skip
"""Fields of items when ``fields`` is given but empty, as the extension recommends."""

Path = tuple[str, ...]


def default_without(exclude: Sequence[str]) -> tuple[str, ...]:
    """Return the default set without some names and their subfields."""
    gone = {*exclude, *(f"properties.{name}" for name in exclude)}
    return tuple(name for name in DEFAULT if name not in gone and name.split(".")[0] not in gone)


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of an item to return."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def prune(self, template: Mapping[str, Any]) -> dict[str, Any]:
        """Return the requested part of an item's template.

        Fields that are both included and excluded are included; a field within an excluded object may be
        included, and the other way round. Names that no item has select nothing.
        """
        if not self.include and not self.exclude:
            include, exclude = _paths(DEFAULT, template), []
        else:
            include, exclude = _paths(self.include, template), _paths(self.exclude, template)
            exclude = [path for path in exclude if path not in include]
        return _prune(template, (), include, exclude, kept=not include)


def _paths(names: Sequence[str], template: Mapping[str, Any]) -> list[Path]:
    """Return names as paths; a bare property name is found in ``properties``."""
    found = []
    for name in names:
        path = tuple(name.split("."))
        if path[0] not in template and path[0] in template.get("properties", {}):
            path = ("properties", *path)
        found.append(path)
    return found


def _prune(
    node: Mapping[str, Any], at: Path, include: list[Path], exclude: list[Path], *, kept: bool
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in node.items():
        here = (*at, key)
        keep = (kept or here in include) and here not in exclude
        deeper = [p for p in (*include, *exclude) if len(p) > len(here) and p[: len(here)] == here]
        inner = value.node if isinstance(value, When) else value
        if not deeper or not isinstance(inner, dict):
            if keep:
                out[key] = value
            continue
        pruned = _prune(inner, here, include, exclude, kept=keep)
        if pruned or keep:
            out[key] = When(value.bits, pruned) if isinstance(value, When) else pruned
    return out
