"""One base error, one class per kind of failure.

Every message names what was wrong (the file, the line, the parameter) and what was expected, so
the command line prints it as it stands and the API sends it as the reason of a 400.
"""

from __future__ import annotations


class TesseraError(Exception):
    """Base of every error this project raises on purpose."""


class GridError(TesseraError, ValueError):
    """A coordinate, name or index that is not on the 0.1 degree tile grid."""


class DatasetError(TesseraError, ValueError):
    """An unknown dataset, or two datasets where only one may be."""


class ManifestError(TesseraError):
    """A manifest that cannot be read, or that breaks its format under ``--strict``."""


class StorageError(TesseraError):
    """A file or address that cannot be opened, listed or written."""


class ArrayError(StorageError):
    """A ``.npy`` that cannot be read in place, or is not the array that its tile must have."""


class ConflictError(StorageError):
    """A file that another writer has put in place, or changed, meanwhile; it is left as it is."""


class ChecksumError(StorageError):
    """Bytes that arrived and are not those that were sent, or that were wanted."""


class CatalogError(TesseraError):
    """A catalogue folder that is missing, incomplete or of another version."""


class SchemaVersionError(CatalogError):
    """An index whose tables are of another version than this program reads."""

    def __init__(self, message: str, *, newer: bool) -> None:
        super().__init__(message)
        self.newer = newer
        """Whether it is of a later version, so that this program cannot know what is in it."""


class DamagedIndexError(CatalogError):
    """An index that is not what its build wrote."""


class QueryError(TesseraError, ValueError):
    """A search parameter that is malformed or not supported (HTTP 400)."""


class QueryTimeoutError(TesseraError):
    """A search that did not finish within its time limit (HTTP 503)."""


class UnavailableError(TesseraError):
    """Something that the server needs cannot be reached at the moment (HTTP 503)."""


class ConvertError(TesseraError):
    """A tile that cannot be converted, with the reason."""


class ClusterError(ConvertError):
    """Workers that can do nothing more: a scheduler that is gone, machines that cannot convert."""
