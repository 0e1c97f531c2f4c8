"""An array computed from a container's pixels, served with range support."""

from __future__ import annotations

from dataclasses import dataclass

from api.files.ranges import Span, failed
from catalog_builder.errors import StorageError
from catalog_builder.pixels.virtual import VirtualArray


@dataclass(frozen=True, slots=True)
class ComputedArray:
    """A :class:`api.files.ranges.Content`."""

    array: VirtualArray
    modified: int | None = None

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.array.size

    @property
    def etag(self) -> str:
        """What the places of its pixels say."""
        return f'"{self.array.stamp}"'

    def read_now(self, span: Span) -> bytes | None:
        """Return nothing: computing is work for a thread."""
        return None

    def read(self, span: Span) -> bytes:
        """Return the bytes; call it from a thread.

        Raises
        ------
        ContentChangedError
            If the pixels cannot be read.
        UnreadableError
            If what contains them is damaged.
        """
        try:
            return self.array.read(span.start, span.stop)
        except StorageError as error:
            raise failed(error, str(error)) from error
