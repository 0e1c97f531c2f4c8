"""``tessera-stac`` with what its verbs import on their way: for :mod:`tests.support.forked`."""

import sys

import rasterio  # noqa: F401

from catalog_builder import cli


def main(*arguments: str) -> None:
    sys.argv = ["tessera-stac", *arguments]
    cli.main()
