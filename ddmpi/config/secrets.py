"""What may be secret in a config: request headers, passwords of proxies, and ``${NAME}`` for what the environment has.

Decides which headers may be sent, which of them never to everybody, and what a text with variables means. A config
never holds a value of the environment: it names variables, rank 0 reads them, and whoever makes requests fills them in.
So nothing that is made of a config (its JSON, digests, messages) can show one.

It must not know which server gets a header (``ServerRules.meant``), or when (``Task.is_at_origin``). It reads no
environment: values are passed in.

Invariant: no message of a ``ValueError`` or ``ConfigError`` from here has a value in it, and no ``repr`` either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from ddmpi.errors import ConfigError

FORBIDDEN_HEADERS: Final = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "range", "if-range"}
    | {"if-match", "if-none-match", "if-modified-since", "if-unmodified-since"}
)
"""Set by the client itself, or turning a 200 into a 206 or 304, which never counts as a success."""
CREDENTIAL_HEADERS: Final = frozenset({"authorization", "cookie"})
"""What the Fetch standard and libcurl keep from other hosts than the one that was meant."""
PROXY_AUTHORIZATION: Final = "proxy-authorization"

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # token of RFC 9110, 5.6.2
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WRONG_VARIABLE: Final = "a variable of the environment as ${NAME}, of letters, digits and _"


def header_objection(name: str, value: str) -> str | None:
    """Return why a header must not be sent, as what was expected instead; None if it may be."""
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        return "a header 'Name: value' in ASCII on one line"
    if name.lower() in FORBIDDEN_HEADERS:
        return f"a header other than {name}, which ddmpi sets itself or which would spoil the answers"
    return None


def checked_header_line(line: str) -> str:
    """Return a line ``Name: value`` that all servers may get. Raises ValueError: it is none, or may be a secret."""
    name, colon, content = line.partition(":")
    objection = header_objection(name, content) if colon else "a header 'Name: value' in ASCII on one line"
    if objection is not None:
        raise ValueError(objection)
    if name.lower() in CREDENTIAL_HEADERS:
        variable = name.upper()
        raise ValueError(
            f"no {name} here: it would go to every server of the table and to all that redirects lead to. Write "
            f'servers: [{{match: "files.mine.org", headers: {{{name}: "${{{variable}}}"}}}}] with your server\'s name, '
            f"and set {variable} in the environment"
        )
    if name.lower() == PROXY_AUTHORIZATION:
        raise ValueError(_INSTEAD_OF_PROXY_AUTHORIZATION)
    return line


_INSTEAD_OF_PROXY_AUTHORIZATION: Final = (
    "no Proxy-Authorization among headers: servers would get it. Write "
    'proxy: "http://${PROXY_USER}:${PROXY_PASSWORD}@proxy.mine.org:3128", and set both in the environment'
)


def checked_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers of a rule. Raises ValueError: one that must not be sent, stands twice, has no value, or is a
    credential that stands in the config itself."""
    lowered = [name.lower() for name in headers]
    if len(set(lowered)) < len(lowered):
        raise ValueError("each header once, whatever its case")
    for name, value in headers.items():
        objection = header_objection(name, value)
        if objection is not None:
            raise ValueError(objection)
        if name.lower() == PROXY_AUTHORIZATION:
            raise ValueError(_INSTEAD_OF_PROXY_AUTHORIZATION)
        if not value.strip():
            raise ValueError(f"a value for {name}")
        if not variables_in(value) and name.lower() in CREDENTIAL_HEADERS:
            raise ValueError(
                f'{name}: "${{NAME}}", with NAME set in the environment: configs are copied, committed and shared'
            )
    return headers


def variables_in(template: str) -> list[str]:
    """Return the variables that a text names, in order. Raises ValueError: ``${`` of anything else."""
    if "${" in _VARIABLE.sub("", template):
        raise ValueError(_WRONG_VARIABLE)
    return _VARIABLE.findall(template)


@dataclass(frozen=True)
class Variables:
    """Values of the environment, by name."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    def fill(self, template: str) -> str:
        """Return the text with values in the place of variables. Raises KeyError: one is not here."""
        return _VARIABLE.sub(lambda found: self.values[found[1]], template)

    def fill_url(self, template: str) -> str:
        """Return the URL with values in the place of variables, percent-encoded unless the whole text is one variable.
        Raises KeyError: one is not here."""
        if _VARIABLE.fullmatch(template):
            return self.fill(template)
        return _VARIABLE.sub(lambda found: quote(self.values[found[1]], safe=""), template)


def read_variables(uses: Iterable[tuple[str, str]], environment: Mapping[str, str]) -> Variables:
    """Return the values of the variables that a config uses.

    Args:
        uses: (dotted key, its text with variables), each.

    Raises:
        ConfigError: with a line for each variable that is not set, is empty, or cannot stand in a header.
    """
    values: dict[str, str] = {}
    problems: dict[str, str] = {}
    for key, template in uses:
        for name in variables_in(template):
            value = environment.get(name)
            if not value:
                state = "is not set" if value is None else "is empty"
                problems.setdefault(
                    name,
                    f"{key}: the environment's variable {name} {state}; write: export {name}=... before the start",
                )
            elif not _VALUE.fullmatch(value) or value != value.strip():
                problems.setdefault(
                    name,
                    f"{key}: the value of {name} has spaces around it, a line break, or characters beyond ASCII",
                )
            else:
                values[name] = value
    if problems:
        raise ConfigError("\n".join(problems.values()))
    return Variables(values)
