"""One base error, one class per kind of failure.

Every message names what was wrong (the file, the line, the parameter) and what was expected, so
the command line prints it unchanged and the API sends it as the reason of a 400.
"""

from __future__ import annotations


class TesseraError(Exception):
    """Base of every error this project raises on purpose."""


class GridError(TesseraError, ValueError):
    """A coordinate, name or index that is not on the 0.1 degree tile grid."""


class DatasetError(TesseraError, ValueError):
    """An unknown dataset, or two datasets where only one is allowed."""


class ManifestError(TesseraError):
    """A manifest that cannot be read, or that breaks its format under ``--strict``."""


class StorageError(TesseraError):
    """A file or URL that cannot be opened, listed or written."""


class MissingFileError(StorageError):
    """A local file that is not there."""


class ArrayError(StorageError):
    """A ``.npy`` that cannot be read by range requests, or is not the array that its tile must have."""


class ConflictError(StorageError):
    """A file that another writer has created or changed in the meantime; it is left unchanged."""


class ChecksumError(StorageError):
    """Bytes that differ from those that were sent, or from the expected checksum."""


class FileChangedError(StorageError):
    """A file that is another one now than when reading it began."""


class StoreError(StorageError):
    """A Zarr or Icechunk store that is damaged, or not laid out as TESSERA's are."""


class CatalogError(TesseraError):
    """A catalogue folder that is missing, incomplete or of another version."""


class SchemaVersionError(CatalogError):
    """An index whose schema version is not the one this program reads."""

    def __init__(self, message: str, *, newer: bool) -> None:
        super().__init__(message)
        self.newer = newer
        """Whether its version is newer, so that this program cannot know what it contains."""


class DamagedIndexError(CatalogError):
    """An index that differs from what its build wrote."""


class QueryError(TesseraError, ValueError):
    """A search parameter that is malformed or not supported (HTTP 400)."""


class TooLargeError(QueryError):
    """A request that is beyond a limit (HTTP 413)."""


class VectorFileError(QueryError, StorageError):
    """A file of points, polygons or a region that is not what it must be: the message names the file."""


class QueryTimeoutError(TesseraError):
    """A search that did not finish within its time limit (HTTP 503)."""


class UnavailableError(TesseraError):
    """Something that the server needs is temporarily unreachable (HTTP 503)."""


class UnreadableError(TesseraError):
    """A file of an item that is damaged, or is not what the catalogue says it is (HTTP 409)."""


class ConvertError(TesseraError):
    """A tile that cannot be converted, with the reason."""


class ClusterError(ConvertError):
    """Workers that cannot continue: the scheduler has gone away, or no machine can convert."""
