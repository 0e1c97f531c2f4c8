"""What a container engine would make of our files, as far as that is text."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.deploy.processes import DEPLOY

DOCKERFILE = DEPLOY / "Dockerfile"
COMPOSE = DEPLOY / "compose.yaml"


@dataclass(slots=True)
class Stage:
    """A stage of the Dockerfile: what it begins from, and its instructions."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [text for kind, text in self.steps if kind == instruction]


def stages() -> dict[str, Stage]:
    """Return the stages by name, in order."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, Stage] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        kind, _, rest = line.partition(" ")
        if kind == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = found[name] = Stage(base, name)
        else:
            stage.steps.append((kind, rest.strip()))
    return found


def inherited(name: str) -> list[tuple[str, str]]:
    """Return the instructions of a stage after those of the stages that it begins from."""
    every = stages()
    steps: list[tuple[str, str]] = []
    while name in every:
        steps = [*every[name].steps, *steps]
        name = every[name].base
    return steps


def last(steps: list[tuple[str, str]], instruction: str) -> str:
    """Return the instruction that counts: the last one."""
    return [text for kind, text in steps if kind == instruction][-1]


def exec_form(text: str) -> list[str]:
    """Return the arguments of ENTRYPOINT, CMD or HEALTHCHECK, which must be in exec form."""
    words: list[str] = json.loads(text[text.index("[") :])
    return words


def copied(stage: Stage) -> list[str]:
    """Return what a stage copies from the project."""
    return [
        source for text in stage.all("COPY") if "--from=" not in text for source in shlex.split(text)[:-1]
    ]


def compose(**values: str) -> dict[str, Any]:
    """Return compose.yaml with its variables put in, as the specification says: ``:-`` and ``:?``."""

    def value(found: re.Match[str]) -> str:
        default = found[3] if found[2] == ":-" else None
        given = values.get(found[1], default)
        assert given is not None, found[0]
        return given

    document: dict[str, Any] = yaml.safe_load(
        re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", value, COMPOSE.read_text())
    )
    return document
