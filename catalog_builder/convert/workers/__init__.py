"""Workers: processes on this machine, or a Dask cluster."""
