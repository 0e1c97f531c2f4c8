"""Options that the commands which write tables share: ``points`` and ``zonal``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TableOut = Annotated[
    Path,
    typer.Option(help="File to write: .parquet (GeoParquet), .arrow, .csv or .npy.", metavar="FILE"),
]
TableDataset = Annotated[str | None, typer.Option(help="Dataset. Default: the first real one.")]
TableBands = Annotated[str, typer.Option(help="Dimensions, counted from 0, such as '0,1,5-7'.")]
CorruptFrom = Annotated[
    float, typer.Option(help="Pixels with this scale or a greater one are corrupt and have no data.")
]
Layer = Annotated[str | None, typer.Option(help="Layer of a file that has several.")]
Readers = Annotated[int, typer.Option(help="Number of threads that read tiles.", min=1)]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
