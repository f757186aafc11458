"""Which URL is acceptable, what is fetched for it, and which server it belongs to.

Must not know tables, tasks or the network. It imports ``pycurl`` for ``CurlUrl`` alone, a pure parser: it is the one
that later connects, so a URL cannot mean one host here and another there (``urlsplit`` silently drops CR, LF and TAB;
libcurl guesses schemes and reads ``0x7f.1``).

The rules; the first that is broken gives the reason for refusal:

1. Leading and trailing white space is dropped. What is left must not be empty, and must be UTF-8.
2. No ASCII control characters, no spaces and no backslashes, anywhere. Nothing inside a URL is repaired.
3. The scheme is written out, is http or https, and is followed by exactly two slashes and a host.
4. No user name or password, not even an empty one.
5. The host is a DNS name (labels of 1 to 63 letters, digits, ``-`` and ``_``, at most 253 characters), an IPv4 or an
   IPv6 address. Percent-encoding is decoded, upper case lowered, names beyond ASCII become punycode, one trailing dot
   is dropped. ``127.1``, ``0x7f000001``, ``0177.0.0.1`` and ``[::ffff:127.0.0.1]`` become ``127.0.0.1``. Link-local
   IPv6, zone ids and labels that mix look-alike alphabets are refused.
6. The port is absent, empty, or a decimal number from 1 to 65535.
7. The URL that is fetched has at most ``MAX_URL_BYTES`` bytes. It has the canonical host, no default port and no
   fragment. Path and query stay as they are (``..`` and ``%zz`` too: a percent sign is never touched), except that
   characters beyond ASCII become percent-encoded UTF-8.

Invariants: ``server`` is the netloc of ``url``; ``parse_url(parse_url(x).url)`` gives the same again; libcurl reads the
same host and port.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from encodings import idna
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

import pycurl

from ddmpi.core.records import INVALID_SERVER, MANY_SERVERS

MAX_URL_BYTES: Final = 8192
"""Longer URLs are refused: nginx and Apache answer 414 from about this size on (their default request line limits)."""
MAX_HOST_CHARS: Final = 253
"""RFC 1035, 2.3.4: 255 octets on the wire leave 253 characters of text."""
PLAIN_MAX_URL_BYTES: Final = MAX_URL_BYTES // 12
"""A plain URL cannot grow past the limit: a character has at most 4 bytes, and each becomes 3 when percent-encoded."""
PLAIN_MAX_SERVER_CHARS: Final = 63
"""A name this short has no label that is too long."""

_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_NAME: Final = r"(?:[a-z0-9][a-z0-9_-]*\.)+[a-z][a-z0-9-]*"
PLAIN_SERVER: Final = rf"(?:{_NAME}|(?:{_OCTET}\.){{3}}{_OCTET})(?::[1-9][0-9]{{0,3}})?"
"""Conservative, the same text for ``re`` and RE2. A URL of such a server needs no repair if its characters are plain,
it has at most ``PLAIN_MAX_URL_BYTES``, and its server at most ``PLAIN_MAX_SERVER_CHARS`` and no default port."""
PLAIN_NOT_ENDING: Final = (":80", ":443")

# Python's texts, unlike arrow's, may have lone surrogates.
_plain = re.compile(rf"(https?://({PLAIN_SERVER}))((?:/[^\x00-\x20\x7f\\\ud800-\udfff]*)?)")
_shape = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(/*)([^/?#]*)(.*)", re.DOTALL)
_control = re.compile(r"[\x00-\x1f\x7f]")
_label = re.compile(r"[a-z0-9_-]{1,63}")
_dots = re.compile("[\u3002\uff0e\uff61]")
_bracketed = re.compile(r"\[([^\[\]]*)\](?::(.*))?")
# The last label of what inet_aton would read as an address (WHATWG URL, "ends in a number").
_numeric_label = re.compile(r"[0-9]+|0x[0-9a-f]*")
_sharp_letters = re.compile("([\u00df\u03c2])")
_PATH_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F))
_CONFUSABLE_SCRIPTS: Final = frozenset({"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "CHEROKEE"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_RESERVED_HOSTS: Final = frozenset({INVALID_SERVER, MANY_SERVERS})


class Parsed(NamedTuple):
    """An acceptable URL: its server (canonical netloc) and what is fetched, in ASCII."""

    server: str
    url: str


class Rejected(NamedTuple):
    """Why a URL is refused: a word, which may be followed by ``: `` and details (never by a password).

    The words: null_url, empty, bad_encoding, bad_scheme, bad_host, bad_port, credentials, control_character, too_long
    and malformed.
    """

    reason: str


def parse_url(url: str | None) -> Parsed | Rejected:
    """Apply the rules at the top of this file to one URL as given. Never raises, whatever the text."""
    if url is None:
        return Rejected("null_url")
    text = url.strip()
    match = _plain.fullmatch(text) if len(text) <= PLAIN_MAX_URL_BYTES else None
    if match:
        origin, server, rest = match.groups()
        if len(server) <= PLAIN_MAX_SERVER_CHARS and not server.endswith(PLAIN_NOT_ENDING):
            return Parsed(server, origin + _request_target(rest))
    return parse_odd_url(text)


def parse_odd_url(text: str) -> Parsed | Rejected:
    """What ``parse_url`` does for a stripped text that is not plain; gives the same for one that is."""
    refusal = _refuse_characters(text)
    if refusal is not None:
        return refusal
    match = _shape.fullmatch(text)
    if match is None:
        return Rejected("bad_scheme: none given")
    scheme, slashes, authority, rest = match.groups()
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        return Rejected(f"bad_scheme: {scheme[:16]}")
    if slashes != "//" or not authority:
        return Rejected("bad_host: empty" if slashes.startswith("//") else 'malformed: no "//" after the scheme')
    server = _canonical_netloc(scheme, authority)
    if isinstance(server, Rejected):
        return server
    target = f"{scheme}://{server}{_request_target(rest)}"
    return Rejected("too_long") if len(target) > MAX_URL_BYTES else Parsed(server, target)


def keeps_origin(before: Parsed, after: Parsed) -> bool:
    """Return whether a redirect from one URL to another stays at its server and in its scheme, or goes from http to
    https there: who may see what was meant for the first. So ``requests`` (should_strip_auth) has it; libcurl and the
    Fetch standard do not let https pass either, but that is what servers redirect to from a table's old URLs."""
    return before.server == after.server and (is_encrypted(after.url) or not is_encrypted(before.url))


def is_encrypted(url: str) -> bool:
    """Return whether an acceptable URL is asked over TLS."""
    return url.startswith("https:")


def _refuse_characters(text: str) -> Rejected | None:
    if not text:
        return Rejected("empty")
    if len(text) > MAX_URL_BYTES and len(text.partition("#")[0]) > MAX_URL_BYTES:
        return Rejected("too_long")
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return Rejected("bad_encoding")
    control = _control.search(text)
    if control:
        return Rejected(f"control_character: 0x{ord(control.group()):02x}")
    if " " in text:
        return Rejected("malformed: space")
    return Rejected("malformed: backslash") if "\\" in text else None


def _request_target(rest: str) -> str:
    """Path and query as they go over the wire, without the fragment; empty becomes ``/``."""
    target = rest.partition("#")[0]
    if not target.startswith("/"):
        target = "/" + target
    return target if target.isascii() else quote(target, safe=_PATH_SAFE)


@lru_cache(maxsize=16384)
def _canonical_netloc(scheme: str, authority: str) -> str | Rejected:
    if "@" in authority:
        return Rejected("credentials")
    bracketed = _bracketed.fullmatch(authority)
    host_text, port_text = (bracketed[1], bracketed[2] or "") if bracketed else authority.partition(":")[::2]
    if len(host_text) > 9 * MAX_HOST_CHARS:  # not even percent-encoded could it be a name
        return Rejected("bad_host: too long")
    host = _canonical_ipv6(host_text) if bracketed else _canonical_name(host_text)
    if isinstance(host, Rejected):
        return host
    digits = port_text.lstrip("0") if port_text.isascii() and port_text.isdigit() else ""
    if port_text and (not digits or len(digits) > 5 or int(digits) > 65535):
        return Rejected("bad_port: not a number from 1 to 65535")  # the text may be a password with a slash behind it
    netloc = host if not digits or int(digits) == _DEFAULT_PORTS[scheme] else f"{host}:{digits}"
    if not _libcurl_reads(f"{scheme}://{netloc}/", host, digits):
        return Rejected("bad_host: libcurl reads another")
    return netloc


def _libcurl_reads(url: str, host: str, digits: str) -> bool:
    """Whether the parser that connects sees exactly this host and port."""
    try:
        parts = pycurl.CurlUrl(url, pycurl.U_DISALLOW_USER)
    except pycurl.error:
        return False
    return parts.host == host and (parts.port or digits) == digits


def _canonical_ipv6(text: str) -> str | Rejected:
    if "%" in text:
        return Rejected("bad_host: zone id")
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return Rejected("bad_host: not an IPv6 address")
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return Rejected("bad_host: link-local") if address.is_link_local else f"[{_as_libcurl_writes(address)}]"


def _as_libcurl_writes(address: ipaddress.IPv6Address) -> str:
    """``inet_ntop``'s text: Python's own differs from it, and between versions, where IPv4 is embedded."""
    return (pycurl.CurlUrl(f"http://[{address.exploded}]/").host or "").strip("[]")


def _canonical_name(text: str) -> str | Rejected:
    try:
        decoded = unquote_to_bytes(text).decode() if "%" in text else text
        host = decoded.lower() if decoded.isascii() else _punycode(decoded)
    except UnicodeError as error:
        return Rejected(f"bad_host: {str(error)[:80]}")
    host = host.removesuffix(".")
    if not host or len(host) > MAX_HOST_CHARS:
        return Rejected("bad_host: too long" if host else "bad_host: empty")
    if not all(_label.fullmatch(label) for label in host.split(".")):
        return Rejected("bad_host: a label is empty, too long, or not of letters, digits, - and _")
    if host in _RESERVED_HOSTS:
        return Rejected("bad_host: reserved")
    return _canonical_ipv4(host) if _numeric_label.fullmatch(host.rpartition(".")[2]) else host


def _canonical_ipv4(host: str) -> str | Rejected:
    """The dotted quad that libcurl makes of ``127.1``, ``0x7f000001`` or ``2130706433``."""
    try:
        return str(ipaddress.IPv4Address(pycurl.CurlUrl(f"http://{host}/").host or ""))
    except (ValueError, pycurl.error):
        return Rejected("bad_host: not an IPv4 address")


def _punycode(host: str) -> str:
    """Lowercase ASCII form of a name beyond ASCII. Raises UnicodeError if there is none."""
    return ".".join(_punycode_label(label) for label in _dots.sub(".", host).split("."))


def _punycode_label(label: str) -> str:
    # nameprep is of 2003 and turns sharp s and final sigma into other letters; names registered since mean these two.
    pieces = _sharp_letters.split(label)
    mapped = "".join(piece if _sharp_letters.fullmatch(piece) else idna.nameprep(piece) for piece in pieces)
    if mapped.isascii():
        return mapped.lower()
    if "." in mapped:  # U+2488 is a digit and a full stop
        raise UnicodeError("a character that maps to a full stop")
    scripts = {unicodedata.name(char, "UNKNOWN").partition(" ")[0] for char in mapped if char.isalpha()}
    if len(scripts & _CONFUSABLE_SCRIPTS) > 1:
        raise UnicodeError(f"mixed scripts {', '.join(sorted(scripts & _CONFUSABLE_SCRIPTS))}")
    return "xn--" + mapped.encode("punycode").decode("ascii").lower()
