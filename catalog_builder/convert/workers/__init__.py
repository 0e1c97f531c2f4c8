"""Who does the jobs: processes of this machine, or a Dask cluster."""
