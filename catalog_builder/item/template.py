"""A STAC object written once, as nested data with slots, and rendered to JSON text and to Arrow.

The API needs bytes for a page of items in well under a millisecond, the parquet writer needs whole
columns, and both must agree. So an item is a template: ordinary dicts, lists and constants,
with the nodes below where rows differ. :class:`JsonRenderer` compiles it to one ``%`` format per
combination of flags; :class:`ArrowRenderer` walks it and builds nested arrays.

The values that fill the slots are *columns*: a mapping from slot name to a numpy array (or a list)
with one element per row, computed by the template's owner.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

Columns = Mapping[str, Any]
"""Slot name to a sequence with one value per row."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string with ``{slot}`` fields; slot values must need no JSON escaping."""

    template: str


@dataclass(frozen=True, slots=True)
class Instant(Text):
    """A :class:`Text` that is an RFC 3339 time: a string in JSON, a timestamp column in Arrow."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number, from the column with that name."""

    slot: str


@dataclass(frozen=True, slots=True)
class Numbers:
    """A list of numbers of any length: the column holds the lists."""

    slot: str
    integer: bool = True


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false, from the row's flags."""

    bit: int


@dataclass(frozen=True, slots=True)
class When:
    """A dict value that is present only where the row's flags contain all of these bits."""

    bits: int
    node: Any
    or_bits: tuple[int, ...] = ()
    """Or all of one of these."""

    def holds(self, flags: int) -> bool:
        """Return whether a row with these flags has the value."""
        return any(flags & bits == bits for bits in (self.bits, *self.or_bits))

    def absent(self, flags: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Return the mask of rows that do not have the value."""
        absent: npt.NDArray[np.bool_] = (flags & self.bits) != self.bits
        for bits in self.or_bits:
            absent &= (flags & bits) != bits
        return absent


@dataclass(frozen=True, slots=True)
class Choice:
    """One value where the row's flags hold all of these bits, another elsewhere.

    Both of the same type, or both objects, which may have different keys.
    """

    bits: int
    node: Any
    otherwise: Any


class BandNumbers:
    """A row's numbers per band, decoded only when rendered."""

    __slots__ = ("_decode", "names")

    def __init__(
        self, names: tuple[str, ...], decode: Callable[[], npt.NDArray[np.float32 | np.int8]]
    ) -> None:
        self.names = names
        self._decode = decode

    def _json(self) -> bytes:
        """Return all numbers as a JSON list, band by band."""
        flat = np.ascontiguousarray(self._decode().T).ravel()
        return orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)

    def text(self) -> list[str]:
        """Return the numbers as JSON, band by band: names of band 0, names of band 1, ..."""
        return self._json().decode()[1:-1].split(",")

    def numbers(self) -> npt.NDArray[np.float64]:
        """Return exactly the numbers of the text, float64 (names, bands)."""
        return np.array(orjson.loads(self._json())).reshape(-1, len(self.names)).T


@dataclass(frozen=True, slots=True)
class Statistics:
    """A list of named bands, with statistics where the row's flags contain all of these bits.

    The column holds :class:`BandNumbers`, or None where they do not.
    """

    bits: int
    slot: str
    bands: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def plain(self) -> list[dict[str, str]]:
        """The list without statistics."""
        return [{"name": band} for band in self.bands]

    def json(self, value: BandNumbers | None) -> str:
        """Return one row's list."""
        if value is None:
            return "null"
        pieces = list(_statistics_pieces(self.bands, self.names))
        pieces[1::2] = value.text()  # and joined: half the time of a %-format with as many fields
        return "".join(pieces)


class JsonRenderer:
    """Renders rows to JSON text. Thread-safe, except that two threads may compile the same format."""

    def __init__(self, template: Mapping[str, Any]) -> None:
        self._template = template
        self._formats: dict[int, tuple[str, list[str]]] = {}
        self._special = {node.slot: node for node in _nodes(template) if isinstance(node, Statistics)}

    def render(self, columns: Columns, flags: Sequence[int]) -> list[str]:
        """Return one JSON text per row, in row order."""
        out: list[str] = [""] * len(flags)
        distinct = set(flags)
        for variant in distinct:
            fmt, slots = self._format(variant)
            if len(distinct) == 1:
                used = {s: self._values(columns, s, None) for s in set(slots)}
                out = [fmt % values for values in _rows([used[s] for s in slots], len(flags))]
                break
            picked = [i for i, f in enumerate(flags) if f == variant]
            needed = {s: self._values(columns, s, picked) for s in set(slots)}
            for i, values in zip(picked, _rows([needed[s] for s in slots], len(picked)), strict=True):
                out[i] = fmt % values
        return out

    def _values(self, columns: Columns, slot: str, picked: Sequence[int] | None) -> Sequence[Any]:
        """Return a slot's values for some rows (all if None)."""
        column = columns[slot]
        values = column if picked is None else [column[i] for i in picked]
        node = self._special.get(slot)
        return values if node is None else [node.json(v) for v in values]

    def _format(self, flags: int) -> tuple[str, list[str]]:
        found = self._formats.get(flags)
        if found is None:
            slots: list[str] = []
            found = self._formats[flags] = ("".join(_json_pieces(self._template, flags, slots)), slots)
        return found


def _rows(columns: Sequence[Sequence[Any]], n: int) -> Iterable[tuple[Any, ...]]:
    """Return columns as n rows; a template without slots has no column to count rows by."""
    return zip(*columns, strict=True) if columns else repeat((), n)


_SLOT = re.compile(r"\{(\w+)\}")


def _escape(constant: Any) -> str:
    return orjson.dumps(constant).decode().replace("%", "%%")


def _json_pieces(node: Any, flags: int, slots: list[str]) -> Iterable[str]:
    """Yield the pieces of a %-format for a node, appending the slots it uses in their order."""
    match node:
        case Text(template):
            last = 0
            yield '"'
            for field in _SLOT.finditer(template):
                yield _escape(template[last : field.start()])[1:-1] + "%s"
                slots.append(field[1])
                last = field.end()
            yield _escape(template[last:])[1:-1] + '"'
        case Number(slot):
            slots.append(slot)
            yield "%s"
        case Numbers(slot):
            # Lists come as Python lists of numbers; their repr is their JSON.
            slots.append(slot)
            yield "%s"
        case Flag(bit):
            yield "true" if flags & bit else "false"
        case Statistics(bits, slot):
            if flags & bits == bits:
                slots.append(slot)
                yield "%s"
            else:
                yield _escape(node.plain)
        case Choice(bits, chosen, otherwise):
            yield from _json_pieces(chosen if flags & bits == bits else otherwise, flags, slots)
        case dict():
            yield from _json_object(node, flags, slots)
        case list() if _has_slots(node):
            yield "["
            for i, value in enumerate(node):
                yield "," if i else ""
                yield from _json_pieces(value, flags, slots)
            yield "]"
        case _:
            yield _escape(node)


def _json_object(node: Mapping[str, Any], flags: int, slots: list[str]) -> Iterable[str]:
    yield "{"
    comma = ""
    for key, value in node.items():
        if isinstance(value, When):
            if not value.holds(flags):
                continue
            value = value.node
        yield f"{comma}{_escape(key)}:"
        yield from _json_pieces(value, flags, slots)
        comma = ","
    yield "}"


@lru_cache(maxsize=16)
def _statistics_pieces(bands: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the JSON of a list of bands in pieces, of which every second one is empty, for a number."""
    fields = ",".join(f"{orjson.dumps(name).decode()}:\0" for name in names)
    objects = (f'{{"name":{orjson.dumps(band).decode()},"statistics":{{{fields}}}}}' for band in bands)
    constants = f"[{','.join(objects)}]".split("\0")
    pieces = [""] * (2 * len(constants) - 1)
    pieces[::2] = constants
    return tuple(pieces)


def _nodes(node: Any) -> Iterable[Any]:
    """Yield every node of a template."""
    yield node
    match node:
        case When(_, inner):
            yield from _nodes(inner)
        case Choice(_, chosen, otherwise):
            yield from _nodes(chosen)
            yield from _nodes(otherwise)
        case dict():
            for value in node.values():
                yield from _nodes(value)
        case list():
            for value in node:
                yield from _nodes(value)


def constant_part(node: Any) -> Any:
    """Return what is the same in every row, in JSON's types; a slot is left out.

    A choice of values is its second; one of objects is its first, what the others are on the way to.
    """
    match node:
        case When(_, inner):
            return constant_part(inner)
        case Choice(_, dict() as chosen):
            return constant_part(chosen)
        case Choice(_, _, otherwise):
            return constant_part(otherwise)
        case dict():
            parts = {key: constant_part(value) for key, value in node.items()}
            return {key: value for key, value in parts.items() if value is not None}
        case list():
            return [part for part in map(constant_part, node) if part is not None]
        case Statistics():
            return node.plain
        case Text() | Number() | Numbers() | Flag():
            return None
    return node


def _has_slots(node: Any) -> bool:
    match node:
        case Text() | Number() | Numbers() | Flag() | When() | Choice() | Statistics():
            return True
        case dict():
            return any(map(_has_slots, node.values()))
        case list():
            return any(map(_has_slots, node))
    return False


class ArrowRenderer:
    """Renders rows to nested Arrow arrays; a :class:`When` that does not apply is null."""

    def __init__(self, template: Mapping[str, Any]) -> None:
        self._template = template
        # Constants repeated to the longest batch so far: long lists (128 bands) cost once, not per batch.
        self._repeated: dict[int, pa.Array] = {}

    def render(self, columns: Columns, flags: npt.NDArray[np.integer]) -> dict[str, pa.Array]:
        """Return one array per top-level key of the template."""
        batch = _ArrowBatch(columns, flags, self._repeated)
        return {key: batch.value(node) for key, node in self._template.items()}


class _ArrowBatch:
    """One batch of rows being rendered to Arrow."""

    def __init__(
        self, columns: Columns, flags: npt.NDArray[np.integer], repeated: dict[int, pa.Array]
    ) -> None:
        self.columns = columns
        self.flags = flags
        self.n = len(flags)
        self.texts: dict[str, pa.Array] = {}
        self.repeated = repeated

    def value(self, node: Any) -> pa.Array:
        """Return a node's array; null where a :class:`When` does not apply."""
        if not isinstance(node, When):
            return self.array(node)
        absent = node.absent(self.flags)
        if isinstance(node.node, dict):
            return self.struct(node.node, absent)
        whole = self.array(node.node)
        return pc.if_else(pa.array(absent), pa.scalar(None, whole.type), whole)

    def array(self, node: Any) -> pa.Array:
        match node:
            case Instant(template):
                unzoned = pc.strptime(self.join(template), format="%Y-%m-%dT%H:%M:%SZ", unit="us")
                return unzoned.cast(pa.timestamp("us", tz="UTC"))
            case Text(template):
                return self.join(template)
            case Number(slot):
                return pa.array(self.columns[slot])
            case Numbers(slot, integer):
                return pa.array(self.columns[slot], pa.list_(pa.int64() if integer else pa.float64()))
            case Flag(bit):
                return pa.array((self.flags & bit) != 0)
            case Statistics():
                return self.statistics(node)
            case Choice():
                return self.merge(self.cases(node))
            case dict() if _has_slots(node):
                return self.struct(node, None)
            case list() if _has_slots(node):
                return self.interleave([self.array(v) for v in node])
        return self.constant(node)

    def cases(self, node: Any) -> list[tuple[npt.NDArray[np.bool_], Any]]:
        """Return what a choice, and those within it, choose from, and the rows in which each is chosen."""
        found = []
        left = np.ones(self.n, dtype=np.bool_)
        while isinstance(node, Choice):
            holds = (self.flags & node.bits) == node.bits
            found.append((left & holds, node.node))
            left, node = left & ~holds, node.otherwise
        return [*found, (left, node)]

    def merge(self, cases: Sequence[tuple[npt.NDArray[np.bool_], Any]]) -> pa.Array:
        """Return the array of what is one node in some rows and another in others, null in the rest.

        Objects become one with the keys of all: Arrow has one type for a column.
        """
        if all(isinstance(node, dict) for _, node in cases):
            keys = list(dict.fromkeys(key for _, node in cases for key in node))
            return pa.StructArray.from_arrays(
                [self.merge([(rows, node[key]) for rows, node in cases if key in node]) for key in keys],
                names=keys,
                mask=pa.array(~np.logical_or.reduce([rows for rows, _ in cases])),
            )
        (first, node), *others = cases
        whole = self.value(node)
        if not first.all():
            whole = pc.if_else(pa.array(first), whole, pa.scalar(None, whole.type))
        for rows, other in others:
            whole = pc.if_else(pa.array(rows), self.value(other), whole)
        return whole

    def text(self, slot: str) -> pa.Array:
        if slot not in self.texts:
            values = self.columns[slot]
            self.texts[slot] = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
        return self.texts[slot]

    def join(self, template: str) -> pa.Array:
        parts: list[Any] = []
        last = 0
        for slot in _SLOT.finditer(template):
            parts += [template[last : slot.start()], self.text(slot[1])]
            last = slot.end()
        parts.append(template[last:])
        return pc.binary_join_element_wise(*[p for p in parts if not (isinstance(p, str) and not p)], "")

    def struct(self, node: Mapping[str, Any], absent: npt.NDArray[np.bool_] | None) -> pa.Array:
        return pa.StructArray.from_arrays(
            [self.value(v) for v in node.values()],
            names=list(node),
            mask=None if absent is None else pa.array(absent),
        )

    def interleave(self, items: list[pa.Array]) -> pa.Array:
        """Return lists of a fixed length: element i of row r is ``items[i][r]``."""
        width = len(items)
        if all(pa.types.is_primitive(i.type) for i in items):
            values = pa.array(np.stack([i.to_numpy(zero_copy_only=False) for i in items], axis=1).ravel())
        else:
            order = np.arange(self.n * width, dtype=np.int64).reshape(width, self.n).T.ravel()
            values = pc.take(pa.concat_arrays(items), pa.array(order))
        return pa.ListArray.from_arrays(_offsets(self.n, width), values)

    def statistics(self, node: Statistics) -> pa.Array:
        """Return lists of bands; a band's statistics are null where a row has none."""
        values = self.columns[node.slot]
        n_bands = len(node.bands)
        numbers = np.zeros((len(values), len(node.names), n_bands))
        absent = np.ones((len(values), n_bands), dtype=np.bool_)
        for i, value in enumerate(values):
            if value is not None:
                numbers[i], absent[i] = value.numbers(), False
        statistics = pa.StructArray.from_arrays(
            [pa.array(numbers[:, k].ravel()) for k in range(len(node.names))],
            names=list(node.names),
            mask=pa.array(absent.ravel()),
        )
        names = pc.take(
            pa.array(node.bands), pa.array(np.tile(np.arange(n_bands, dtype=np.int32), len(values)))
        )
        bands = pa.StructArray.from_arrays([names, statistics], names=["name", "statistics"])
        return pa.ListArray.from_arrays(_offsets(len(values), n_bands), bands)

    def constant(self, node: Any) -> pa.Array:
        """Return a constant n times."""
        whole = self.repeated.get(id(node))
        if whole is None or len(whole) < self.n:
            whole = self.repeated[id(node)] = _repeat(node, self.n)
        return whole[: self.n]


def _repeat(constant: Any, n: int) -> pa.Array:
    if isinstance(constant, list) and constant:
        one = pa.array(constant)
        values = pc.take(one, pa.array(np.tile(np.arange(len(one), dtype=np.int32), n)))
        return pa.ListArray.from_arrays(_offsets(n, len(one)), values)
    if isinstance(constant, dict):
        return pa.StructArray.from_arrays([_repeat(v, n) for v in constant.values()], names=list(constant))
    return pa.repeat(pa.scalar(constant), n)


def _offsets(n: int, width: int) -> pa.Array:
    return pa.array(np.arange(0, n * width + 1, width, dtype=np.int32))
