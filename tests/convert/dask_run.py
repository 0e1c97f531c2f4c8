"""Convert a folder on a Dask cluster of one process: ``dask_run.py SOURCE OUT``.

A program of its own, because Dask asks the system for its outward address at start, which the tests forbid.
"""

from __future__ import annotations

import sys

from distributed import LocalCluster

from catalog_builder.convert.job import Options
from catalog_builder.convert.run import run
from catalog_builder.convert.source import Wanted, plan
from catalog_builder.convert.workers import dask_workers

if __name__ == "__main__":
    source, out = sys.argv[1:]
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        workers = dask_workers(cluster.scheduler_address)
        assert workers.window == 6
        report = run(plan([source], Wanted()), Options(out), workers)
    print(report.converted, len(report.failed))
