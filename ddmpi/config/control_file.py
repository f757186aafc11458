"""control.yaml: what may stand in it, and the rules that it means.

It has no clock and touches no file: whoever reads the file passes its text.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError

from ddmpi.config.messages import describe_problem, read_yaml
from ddmpi.config.sections import Section
from ddmpi.config.value_types import ServerPattern
from ddmpi.core.protocol import ControlOverride
from ddmpi.errors import ConfigError


class FileRule(Section):
    """What holds for servers, or groups of servers, that match; null means as configured."""

    match: ServerPattern = Field(description="Name of a server or group, or a glob.")
    pause: bool = Field(default=False, description="Send nothing until the rule is gone.")
    give_up: bool = Field(
        default=False, description="Do not wait for these servers: their rows become errors of kind given_up."
    )
    rate_limit: float | None = Field(None, ge=0, le=1_000_000, description="Requests per second; 0 = no limit.")
    max_connections: int | None = Field(None, ge=1, le=10_000, description="Connections at the same time.")
    bytes_per_second: float | None = Field(None, ge=0, description="Bytes per second; 0 = no limit.")
    bytes_per_hour: float | None = Field(None, ge=0, description="Bytes in any 60 minutes; 0 = no limit.")
    bytes_per_day: float | None = Field(None, ge=0, description="Bytes in 24 hours; 0 = no limit.")

    def rule(self) -> ControlOverride:
        """Return the rule as the core has it."""
        return ControlOverride(
            self.match, self.pause, self.rate_limit, self.max_connections, self.bytes_per_second, self.bytes_per_day,
            self.bytes_per_hour, self.give_up,
        )  # fmt: skip


class ControlFile(Section):
    """The whole file."""

    servers: Annotated[tuple[FileRule, ...], Field(strict=False)] = Field(
        (), description="The first rule that matches wins."
    )
    stop: bool = Field(default=False, description="Stop softly; the same command goes on later.")

    def rules(self) -> tuple[ControlOverride, ...]:
        return tuple(rule.rule() for rule in self.servers)


def parse_control(text: str, source: str) -> ControlFile:
    """Return the content of a control file; an empty one asks for nothing. Raises ConfigError: with all problems, one
    line each; ``source`` is named."""
    data, problems = read_yaml(text, source)
    try:
        parsed = ControlFile.model_validate({} if data is None else data)
    except ValidationError as error:
        problems = [*problems, *(describe_problem(found, ControlFile) for found in error.errors())]
    if problems:
        raise ConfigError("\n".join([f"{source}: nothing of it is used", *(f"  {problem}" for problem in problems)]))
    return parsed
