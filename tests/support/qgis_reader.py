"""Read a band with QGIS as its canvas does, without a screen: run as a script, by the distribution's Python.

``python qgis_reader.py PATH OUT.npz BAND X Y WIDTH HEIGHT FACTOR``: saves the window at full resolution, and
the whole raster reduced by the factor; prints QGIS's version.
"""

import os
import sys

import numpy as np
from qgis.core import Qgis, QgsApplication, QgsRasterLayer, QgsRectangle


def main(path, out, *numbers):
    band, x, y, width, height, factor = map(int, numbers)
    layer = QgsRasterLayer(path, "layer", "gdal")
    assert layer.isValid(), layer.error().message()
    extent, provider = layer.extent(), layer.dataProvider()
    step = layer.rasterUnitsPerPixelX()
    west, north = extent.xMinimum() + x * step, extent.yMaximum() - y * step
    window = QgsRectangle(west, north - height * step, west + width * step, north)

    def read(where, columns, rows):
        block = provider.block(band, where, columns, rows)
        return np.frombuffer(block.data().data(), "f4").reshape(rows, columns)

    reduced = read(extent, -(-layer.width() // factor), -(-layer.height() // factor))
    np.savez(out, window=read(window, width, height), reduced=reduced)
    print(Qgis.QGIS_VERSION, flush=True)


if __name__ == "__main__":
    QgsApplication.setPrefixPath("/usr", True)
    application = QgsApplication([], False)
    application.initQgis()
    main(*sys.argv[1:])
    os._exit(0)  # QGIS 3.22 does not take itself down cleanly
