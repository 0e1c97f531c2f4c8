"""The files for Slurm and AWS Batch: the script and the command that we ship, run as those systems do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from moto import mock_aws
from moto.server import ThreadedMotoServer

from catalog_builder.convert.ledger.reader import latest, read_rows
from tests.convert.making import COLUMN, FILES, YEAR, write_column
from tests.deploy.shards import COMMAND, EMBEDDINGS, ROOT, environment, finished, start

SBATCH = ROOT / "deploy" / "slurm" / "convert.sbatch"
BATCH = ROOT / "deploy" / "aws-batch"

SLOWLY = """
import sys, time
from catalog_builder.convert import run
from catalog_builder.convert.tile.convert import convert_tile
def slowly(job, options):
    time.sleep(0.3)
    return convert_tile(job, options)
run.run.__kwdefaults__["convert"] = slowly
from catalog_builder.cli import main
main()
"""


def _programs(folder: Path, code: str = "from catalog_builder.cli import main; main()") -> dict[str, str]:
    """Put ``tessera-stac`` and a ``scontrol`` that writes down its arguments on PATH."""
    folder.mkdir()
    program = folder / "convert.py"
    program.write_text(f"if __name__ == '__main__':\n    exec({code!r})\n")
    for name, line in (
        ("tessera-stac", f'exec "{sys.executable}" "{program}" "$@"'),
        ("scontrol", f'echo "$@" >> "{folder}/scontrol.log"'),
    ):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    return environment(PATH=f"{folder}:{os.environ['PATH']}")


def _slurm(task: int, count: int, source: Path, out: Path) -> dict[str, str]:
    """Return what Slurm sets for a task of an array job."""
    return {
        "SLURM_ARRAY_JOB_ID": "77",
        "SLURM_JOB_ID": str(78 + task),
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_ARRAY_TASK_COUNT": str(count),
        "SLURM_CPUS_PER_TASK": "1",
        "SOURCE": str(source),
        "OUT": str(out),
    }


def test_the_sbatch_script_is_sound() -> None:
    assert subprocess.run(["bash", "-n", SBATCH]).returncode == 0
    asked = [line.split()[1] for line in SBATCH.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert {"--array=0-31", "--requeue", "--signal=B:TERM@300"} <= set(asked)


def test_an_array_of_two_converts_everything(tmp_path: Path) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    env = _programs(tmp_path / "bin")
    done = finished([start(["bash", str(SBATCH)], env | _slurm(i, 2, source, out)) for i in range(2)])
    assert [p.returncode for p in done] == [0, 0], [p.stderr for p in done]
    rows = list(read_rows(out / "ledger"))
    assert sorted(row.job for row in rows) == sorted(f"synthetic/{YEAR}/{tile.name}" for tile in COLUMN)
    assert all(row.ok for row in rows)
    assert not (tmp_path / "bin" / "scontrol.log").exists()
    # one of two shards, submitted alone once more, with an option of convert
    alone = _slurm(1, 1, source, out) | {"SHARDS": "2"}
    (again,) = finished([start(["bash", str(SBATCH), "--json"], env | alone)])
    assert again.returncode == 0, again.stderr
    said = json.loads(again.stdout)
    assert said["skipped"] == said["total"] < len(COLUMN)


@pytest.mark.parametrize(
    ("lacks", "expected"),
    [
        ("SOURCE", "set SOURCE to what is to be converted"),
        ("OUT", "set OUT to the folder"),
        ("SLURM_ARRAY_TASK_ID", "run it as an array job"),
        ("SLURM_ARRAY_TASK_COUNT", "run it as an array job"),
    ],
)
def test_what_the_sbatch_script_lacks_is_said(tmp_path: Path, lacks: str, expected: str) -> None:
    env = _programs(tmp_path / "bin") | _slurm(0, 2, tmp_path, tmp_path / "out")
    del env[lacks]
    (done,) = finished([start(["bash", str(SBATCH)], env)])
    assert done.returncode != 0
    assert expected in done.stderr


@pytest.mark.parametrize(("restarts", "requeued"), [("0", True), ("100", False)])
def test_a_task_that_makes_way_queues_up_again(tmp_path: Path, restarts: str, *, requeued: bool) -> None:
    source, out = write_column(tmp_path / "src", (2023, 2024)), tmp_path / "out"
    env = _programs(tmp_path / "bin", SLOWLY) | _slurm(0, 1, source, out)
    env |= {"SLURM_CPUS_PER_TASK": "0", "SLURM_RESTART_COUNT": restarts}
    process = start(["bash", str(SBATCH)], env)
    while not any(path.stat().st_size for path in out.glob("ledger/*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)  # as --signal=B: does, to the script alone
    (done,) = finished([process])
    assert done.returncode == 130, done.stderr
    rows = latest(read_rows(out / "ledger"))
    assert 0 < len(rows) < 6
    assert all(row.ok for row in rows.values())
    log = tmp_path / "bin" / "scontrol.log"
    assert (log.read_text() if log.exists() else "") == ("requeue 77_0\n" if requeued else "")
    if requeued:
        (after,) = finished([start(["bash", str(SBATCH), "--json"], env)])
        assert json.loads(after.stdout)["skipped"] == len(rows)
        assert len(latest(read_rows(out / "ledger"))) == 6


# --- AWS Batch --------------------------------------------------------------------------------------


def _json(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BATCH / name).read_text())
    return found


@pytest.mark.parametrize(
    ("file", "operation"),
    [("job-definition.json", "RegisterJobDefinition"), ("submit-job.json", "SubmitJob")],
)
def test_batch_json_has_the_shape_of_the_service(file: str, operation: str) -> None:
    model = botocore.session.get_session().get_service_model("batch").operation_model(operation)
    report = ParamValidator().validate(_json(file), model.input_shape)
    assert not report.has_errors(), report.generate_report()
    wrong = ParamValidator().validate(_json(file) | {"nonsense": 1}, model.input_shape)
    assert wrong.has_errors(), "it does look"


def test_the_array_has_as_many_jobs_as_there_are_shards() -> None:
    definition, job = _json("job-definition.json"), _json("submit-job.json")
    assert job["parameters"]["shard"] == f"array/{job['arrayProperties']['size']}"
    assert job["jobDefinition"] == definition["jobDefinitionName"]
    assert job["parameters"].keys() == definition["parameters"].keys()


def test_batch_takes_the_definition_and_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws(config={"batch": {"use_docker": False}}):
        iam, batch = boto3.client("iam"), boto3.client("batch", region_name="us-east-1")
        trust = json.dumps(_json("job-role-trust.json"))
        iam.create_role(RoleName="tessera-convert", AssumeRolePolicyDocument=trust)
        # moto refuses a malformed policy, as the service does
        iam.create_policy(PolicyName="x", PolicyDocument=json.dumps(_json("job-role-policy.json")))
        batch.register_job_definition(**_json("job-definition.json"))
        (found,) = batch.describe_job_definitions(jobDefinitionName="tessera-convert")["jobDefinitions"]
        strategy = _json("job-definition.json")["retryStrategy"]
        assert str(found["retryStrategy"]).upper() == str(strategy).upper()


def test_the_command_of_the_batch_job(tmp_path: Path) -> None:
    """Run it as Batch does: parameters put in, one process per index of the array."""
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    given = {"source": str(source), "out": str(out), "shard": "array/2", "workers": "0"}
    command = _json("job-definition.json")["containerProperties"]["command"]
    arguments = [given[a.removeprefix("Ref::")] if a.startswith("Ref::") else a for a in command]
    env = [environment(AWS_BATCH_JOB_ARRAY_INDEX=str(i)) for i in range(2)]
    done = finished([start([*COMMAND, *arguments], e) for e in env])
    assert [p.returncode for p in done] == [0, 0], [p.stderr for p in done]
    rows = list(read_rows(out / "ledger"))
    assert sorted(row.job for row in rows) == sorted(f"synthetic/{YEAR}/{tile.name}" for tile in COLUMN)


def test_the_policy_is_enough_and_not_more(tmp_path: Path) -> None:
    """A simulated S3 that enforces policies: the job's command works with it, and nothing else does."""
    source = write_column(tmp_path / "src")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    root = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    try:
        s3, iam = (boto3.Session(**root).client(name, endpoint_url=url) for name in ("s3", "iam"))
        for bucket in ("sources", "results"):
            s3.create_bucket(Bucket=bucket)
        for path in (source / EMBEDDINGS).rglob("*.npy"):
            s3.upload_file(str(path), "sources", f"npy/synthetic/{path.relative_to(source)}")
        policy = (BATCH / "job-role-policy.json").read_text()
        for name, bucket in (("YOUR-SOURCE-BUCKET", "sources"), ("YOUR-OUTPUT-BUCKET", "results")):
            assert name in policy
            policy = policy.replace(name, bucket)
        iam.create_user(UserName="job")
        iam.put_user_policy(UserName="job", PolicyName="s3", PolicyDocument=policy)
        key = iam.create_access_key(UserName="job")["AccessKey"]
        _enforce(url, "0")
        env = environment(
            AWS_ENDPOINT_URL=url,
            AWS_ACCESS_KEY_ID=key["AccessKeyId"],
            AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"],
            AWS_DEFAULT_REGION="us-east-1",
            AWS_BATCH_JOB_ARRAY_INDEX="0",
        )
        given = ["s3://sources/npy", "--out", "s3://results/cogs", "--shard", "array/1", "--workers", "0"]
        for expected in ("3 converted, 0 already done", "0 converted, 3 already done"):
            (done,) = finished([start([*COMMAND, "convert", *given], env)])
            assert done.returncode == 0, done.stderr
            assert expected in done.stdout
        job = boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name="us-east-1")
        mine = job.client("s3", endpoint_url=url)
        listed = mine.list_objects_v2(Bucket="results", Prefix="cogs/")["Contents"]
        # hidden ones are probes of the store, which the job may not delete
        made = [o["Key"] for o in listed if not o["Key"].rpartition("/")[2].startswith(".")]
        assert len(made) == FILES * len(COLUMN) + 1
        for refused in (
            lambda: mine.delete_object(Bucket="results", Key="cogs/x"),
            lambda: mine.put_object(Bucket="results", Key="elsewhere/x", Body=b""),
            lambda: mine.put_object(Bucket="sources", Key="npy/x", Body=b""),
        ):
            with pytest.raises(ClientError, match="AccessDenied"):
                refused()
    finally:
        _enforce(url, "inf")
        server.stop()


def _enforce(url: str, after: str) -> None:
    """Have moto enforce policies after so many requests."""
    request = urllib.request.Request(
        f"{url}/moto-api/reset-auth", after.encode(), {"Content-Type": "text/plain"}, method="POST"
    )
    urllib.request.urlopen(request).close()
