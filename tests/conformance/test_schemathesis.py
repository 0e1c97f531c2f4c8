"""The OpenAPI document tells the truth: thousands of drawn requests, no fault, no undocumented answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from api.app import create_app
from api.endpoints.openapi import OPERATIONS, Operation
from tests.support.catalogs import build_from, patch, write_manifest

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
"""Not those that want every drawn value accepted: a schema cannot say what CQL2 or a token is."""


@pytest.fixture(scope="session")
def web_api(tmp_path_factory: pytest.TempPathFactory) -> schemathesis.openapi.OpenApiSchema:
    home: Path = tmp_path_factory.mktemp("schemathesis")
    one = write_manifest(home / "m", 2020, [*patch(0, 52, 12, 3), *patch(5, -1, 3, 2)])
    two = write_manifest(home / "m", 2021, patch(0, 52, 4, 3))
    build_from(home / "catalog", one, two)
    return schemathesis.openapi.from_asgi("/api", create_app(home / "catalog"))


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda m: m.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: f"{o.method} {o.path}")
def test_every_operation(
    web_api: schemathesis.openapi.OpenApiSchema, operation: Operation, mode: GenerationMode
) -> None:
    drawn = web_api[operation.path][operation.method].as_strategy(generation_mode=mode)

    @settings(max_examples=75, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=drawn)
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    check()
