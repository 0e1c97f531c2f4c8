"""A Dask cluster of Slurm jobs for ``tessera-stac convert --dask``, with dask-jobqueue.

Run it where jobs may be submitted, and leave it running; it writes the scheduler file that convert takes::

    pip install dask-jobqueue
    python slurm_cluster.py --jobs 32 --scheduler-file ~/tessera-dask.json
    tessera-stac convert SOURCE --out OUT --dask ~/tessera-dask.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import dask
from dask_jobqueue import SLURMCluster


def make(arguments: argparse.Namespace) -> SLURMCluster:
    """Return a cluster without jobs. A job is one node's share: a process of one thread per core."""
    dask.config.set(
        {
            # One tile at a time for each thread: nothing beside it is blamed when its worker dies.
            "distributed.scheduler.worker-saturation": 1.0,
            # Tiles are not Dask's data: it can spill none of their memory, and pausing would only wait.
            "distributed.worker.memory.target": False,
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.pause": False,
        }
    )
    return SLURMCluster(
        cores=arguments.cores,
        processes=arguments.cores,
        memory=f"{arguments.cores} GiB",
        walltime=arguments.walltime,
        queue=arguments.partition,
        account=arguments.account,
        # Workers leave before Slurm ends them, so that no tile is cut in the middle.
        worker_extra_args=["--lifetime", arguments.lifetime, "--lifetime-stagger", "4m"],
        log_directory=arguments.logs,
    )


def main() -> None:
    """Start the jobs, write the scheduler file, and stay."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=8, help="Slurm jobs to keep running")
    parser.add_argument("--cores", type=int, default=8, help="cores of a job, 1 GiB each")
    parser.add_argument("--walltime", default="04:00:00")
    parser.add_argument("--lifetime", default="230m", help="less than walltime by some tiles' time")
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--logs", default="dask-logs")
    parser.add_argument("--scheduler-file", default="tessera-dask.json")
    parser.add_argument("--job-script", action="store_true", help="print what would be submitted, and end")
    arguments = parser.parse_args()
    with make(arguments) as cluster:
        if arguments.job_script:
            print(cluster.job_script())
            return
        # Adaptive with equal bounds: jobs that end are submitted again.
        cluster.adapt(minimum_jobs=arguments.jobs, maximum_jobs=arguments.jobs)
        file = Path(arguments.scheduler_file)
        file.write_text(json.dumps(dict(cluster.scheduler_info)))
        print(f"{cluster.scheduler_address}, scheduler file {file}, dashboard {cluster.dashboard_link}")
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
