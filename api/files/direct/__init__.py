"""Direct access to the published arrays: every tile-year is readable by range before it is converted.

Upstream's ``.npy`` is an uncompressed array behind a short header, so generated documents let GDAL read
any window of it in place (design, decision 12). GDAL reads an array only from a file beside its
description, so one folder holds both, per tile-year::

    /source/<dataset>/<year>/<grid>/            an index that GDAL reads, where the source is local
                                    <grid>_f32.vrt     embeddings, 128 x Float32   generated
                                    <grid>.vrt         codes, 128 x Int8           generated
                                    <grid>_u8.vrt      their bytes, for _f32.vrt   generated
                                    <grid>_scales.vrt  scales, Float32             generated
                                    <grid>_computed.vrt values, 128 x Float32  generated, over
                                    <grid>_computed.tif the same as a GeoTIFF  computed from any container
                                    <grid>_b005.vrt    one band, Float32, 0 to 127 generated; it reads
                                    <grid>_scales.xml  labels of the scales        generated
                                    <grid>.xml         and codes                   generated
                                    <grid>_planes.xml      or, where the source is local, of
                                    <grid>_planes.bin      the codes, band after band
                                    <label>.aux.xml    where a label's array lies on the ground
                                    <grid>.npy         codes       } by range where the source is a
                                    <grid>_scales.npy  scales      } local folder, by redirect to
                                    <grid>.tiff        landmask    } where it is published if not

The grid is the tile's formula on the snapped 10 m lattice, where the pixels truly lie (decision 6).
Whether the array has the formula's shape was checked by the builder, against the size that the
manifest states; where the file is local its header is read as well, and what does not fit is
rejected with 409 and the reason.

Of a dataset whose container (:mod:`catalog_builder.pixels.container.table`) is not these files, they are
computed from its pixels as they are asked for.
"""
