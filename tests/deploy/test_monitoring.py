"""What operators watch: metrics of all workers, rules that fire, a dashboard that finds its data."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from api.http.metrics import ERRORS
from tests.deploy.processes import DEPLOY, ROOT, Running, serve_catalog
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.figures import Figures, samples
from tests.support.needs import program
from tests.support.waiting import until

MONITORING = DEPLOY / "monitoring"
RULES: list[dict[str, Any]] = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
NAMES = re.compile(r"\btessera_\w+")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("monitoring")
    build_from(folder / "catalog", write_manifest(folder, 2024, patch(0, 52, 4, 3)))
    with serve_catalog(folder / "catalog", workers=2) as running:
        yield running


def _scrape(server: Running) -> Figures:
    return samples(httpx.get(f"{server.url}/_mgmt/metrics").text)  # a new connection: any worker


def _searches(figures: Figures) -> float:
    return figures["tessera_requests_total", ("/search", "GET", "200")]


def test_any_worker_answers_for_all(server: Running) -> None:
    sent = 0
    for _ in range(40):
        sent += len(
            httpx.get(f"{server.url}/search?limit=2", headers={"accept-encoding": "identity"}).content
        )
    httpx.get(f"{server.url}/search?limit=none")
    # An answer is counted as it ends, which a quick client may be ahead of.
    until(lambda: _scrape(server)["tessera_request_seconds_count", ("/search",)] == 41)
    scrapes = [_scrape(server) for _ in range(12)]
    assert {_searches(s) for s in scrapes} == {40}
    for figures in scrapes:
        assert figures["tessera_request_seconds_count", ("/search",)] == 41
        assert figures["tessera_request_seconds_bucket", ("/search", "+Inf")] == 41
        assert figures["tessera_response_bytes_total", ("/search",)] > sent
        assert figures["tessera_errors_total", ("bad_request",)] == 1
        assert figures["tessera_errors_total", ("search_timeout",)] == 0
        assert figures["tessera_requests_in_flight", ()] >= 1  # the scrape itself
        assert figures["tessera_catalogue_items", ("tessera-v1",)] == 12
        workers = {labels[0] for name, labels in figures if name == "tessera_worker_memory_bytes"}
        assert workers == {str(pid) for pid in server.workers()}
        assert len(workers) == 2
        assert all(figures["tessera_worker_memory_bytes", (w,)] > 1e7 for w in workers)
        assert all(figures["tessera_worker_open_files", (w,)] > 5 for w in workers)
        assert all(figures["tessera_worker_cpu_seconds_total", (w,)] > 0 for w in workers)


def test_a_killed_worker_takes_no_counts_with_it(server: Running) -> None:
    httpx.get(f"{server.url}/search?limit=1")
    before = _scrape(server)
    victim, kept = server.workers()
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(set(server.workers()) - {victim}) == 2)
    for _ in range(6):
        after = _scrape(server)
        assert _searches(after) >= _searches(before)
        assert ("tessera_worker_memory_bytes", (str(victim),)) not in after
        assert ("tessera_worker_memory_bytes", (str(kept),)) in after


def _queries() -> list[str]:
    panels = [t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]]
    return panels + [v["query"] for v in DASHBOARD["templating"]["list"]] + [r["expr"] for r in RULES]


def test_rules_and_dashboard_ask_for_what_there_is(server: Running) -> None:
    httpx.get(f"{server.url}/search?limit=1")
    figures = _scrape(server)
    exported = {name for name, _ in figures}
    asked = {name for query in _queries() for name in NAMES.findall(query)}
    assert len(asked) > 10
    assert asked <= exported
    labels = set(re.findall(r'(\w+)(?:=~|=)"', " ".join(_queries())))
    assert labels <= {"instance", "operation", "kind", "job"}
    # every figure that we export is on the dashboard, but for what only names things
    on_panels = {
        n for panel in DASHBOARD["panels"] for t in panel["targets"] for n in NAMES.findall(t["expr"])
    }
    assert exported - on_panels == {"tessera_stac_info", "tessera_catalogue_info"}


def test_every_metric_is_documented(server: Running) -> None:
    document = (ROOT / "docs" / "operations.md").read_text()
    documented = set(re.findall(r"`(tessera_\w+)`", document))
    text = httpx.get(f"{server.url}/_mgmt/metrics").text
    exported = set(re.findall(r"^# TYPE (\w+) \w+$", text, re.MULTILINE))
    assert exported == documented
    for kind in ERRORS:
        assert f"`{kind}`" in document


def test_the_dashboard_is_laid_out() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


SERIES = {
    # what makes each rule fire for server a, and leaves server b alone
    "TesseraStacDown": {'up{job="tessera-stac", instance="%s"}': ("0x40", "1x40")},
    "TesseraStacFaults": {'tessera_errors_total{kind="fault", instance="%s"}': ("0x25 1x15", "7x40")},
    "TesseraStacSearchesTimeOut": {
        'tessera_errors_total{kind="search_timeout", instance="%s"}': ("0+2x40", "0x40"),
        'tessera_requests_total{operation="/search", instance="%s"}': ("0+100x40", "0+100x40"),
    },
    "TesseraStacSlow": {
        'tessera_request_seconds_bucket{operation="/search", instance="%s", le="1.0"}': (
            "0+90x40",
            "0+99x40",
        ),
        'tessera_request_seconds_bucket{operation="/search", instance="%s", le="5.0"}': (
            "0+99x40",
            "0+99x40",
        ),
        'tessera_request_seconds_bucket{operation="/search", instance="%s", le="+Inf"}': (
            "0+100x40",
            "0+100x40",
        ),
    },
    "TesseraStacCatalogueUnreadable": {
        'tessera_catalogue_refresh_failures_total{instance="%s"}': ("0+60x40", "3x40")
    },
    "TesseraStacIndexDamaged": {'tessera_index_damaged{instance="%s"}': ("1x40", "0x40")},
    "TesseraStacCatalogueOld": {
        # promtool's clock starts in 1970
        'tessera_catalogue_built_timestamp_seconds{instance="%s"}': ("-2600000x200", "0x200")
    },
    "TesseraStacFilesRunOut": {
        'tessera_worker_open_files{worker="17", instance="%s"}': ("60000x40", "40x40")
    },
}


def test_rules_fire_when_they_should(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    series, expected = [], []
    assert SERIES.keys() == {rule["alert"] for rule in RULES}
    for rule in RULES:
        labels = {"instance": "a", **rule["labels"]}
        for name, (fires, silent) in SERIES[rule["alert"]].items():
            series += [
                {"series": name % "a", "values": fires},
                {"series": name % "b", "values": silent},
            ]
            labels |= dict(re.findall(r'(job|worker)="([^"]+)"', name))
        texts = {
            key: text.replace("{{ $labels.instance }}", "a")
            .replace("{{ $labels.worker }}", "17")
            .replace("{{ $value }}", "60000")
            for key, text in rule["annotations"].items()
        }
        at = "90m" if rule.get("for") == "1h" else "30m"
        fired = {"exp_labels": labels, "exp_annotations": texts}
        expected.append({"eval_time": at, "alertname": rule["alert"], "exp_alerts": [fired]})
    tests = [{"interval": "1m", "input_series": series, "alert_rule_test": expected}]
    document = {"rule_files": [str(MONITORING / "alerts.yaml")], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document))
    for arguments in (
        ("check", "config", MONITORING / "prometheus.yaml"),
        ("test", "rules", tmp_path / "test.yaml"),
    ):
        done = subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_queries_are_promql(tmp_path: Path) -> None:
    """The dashboard's expressions as recording rules: promtool parses them as Prometheus would."""
    promtool = program("promtool", "prometheus")
    rules = []
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "1m")
            rules.append({"record": f"panel:{panel['id']}:{target['refId']}", "expr": expr})
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout
