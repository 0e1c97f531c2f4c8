"""Tags that GDAL's COG driver does not write, in room that it was made to reserve for them.

The driver copies the tags of bands or those of other domains, not both (GDAL 3.12), and a COG that is opened
for writing is none afterwards. So it gets a tag that holds nothing but room, and the items are written over
it: no byte of the file moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from catalog_builder.errors import ConvertError

ROOM = "TESSERA_STAC_ROOM"
"""Name of the tag that holds the room, in the default domain of the dataset."""


def room_for(items: Iterable[str]) -> str:
    """Return the value of the tag :data:`ROOM` in which the items will fit."""
    return "x" * sum(len(item.encode()) for item in items)


def fill_room(stream: BinaryIO, items: Iterable[str], header_size: int) -> None:
    """Write items over the tag that reserves room for them.

    Parameters
    ----------
    stream
        A COG, open for reading and writing.
    items
        As :func:`room_for` had them; see :func:`~catalog_builder.convert.encode.tiff.tag_item`.
    header_size
        Bytes before its first block.

    Raises
    ------
    ConvertError
        If there is no such tag, or too little room.
    """
    stream.seek(0)
    header = stream.read(header_size)
    start = header.find(f'<Item name="{ROOM}">'.encode())
    end = header.find(b"</Item>", start) + len(b"</Item>")
    text = "".join(items).encode()
    if start < 0 or end - start < len(text):
        raise ConvertError("there is no room for the tags in the COG's header")
    stream.seek(start)
    stream.write(text.ljust(end - start))
