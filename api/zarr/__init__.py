"""Every catalogued tile-year as one Zarr v3 array per UTM zone, computed chunk by chunk as it is read.

::

    /zarr/<dataset>/zarr.json                          all metadata, consolidated
                    utm31/zarr.json                    the group of a zone
                    utm31/embeddings/zarr.json         and of its arrays
                    utm31/embeddings/c/<time>/0/<y>/<x>    int8 (1, 128, 32, 32)
                    utm31/scales/c/<time>/<y>/<x>          float32 (1, 32, 32)
                    utm31/{time,x,y,band}/c/0
    /zarr/<dataset>/bulk/…                             the same in chunks of 256 x 256 pixels
    /zarr/<dataset>@<build>/…                          the same of one build of the catalogue; then 410

The layout is geotessera 0.11's (:mod:`catalog_builder.zone_arrays`), so that its readers take the URL for a
store of its own. A chunk that no tile-year touches is 404, which readers take for its fill value.
"""
