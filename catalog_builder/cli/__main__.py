"""``python -m catalog_builder.cli``: the same as ``tessera-stac``."""

from catalog_builder.cli.main import main

main()
