"""What a User-Agent says: whom a server's operator can ask, and the name by which robots.txt calls us. Pure."""

from __future__ import annotations

import re
from typing import Final

_URL_HOST: Final = re.compile(r"https?://(?:[^\s/@]*@)?([^\s/:?#()<>;,]+)", re.IGNORECASE)
_MAIL_HOST: Final = re.compile(r"[^\s@()<>;,]@([^\s()<>;,]+)")
_PRODUCT: Final = re.compile(r"\s*([^\s/();,]+)")
_COMPATIBLE: Final = re.compile(r"\(\s*compatible\s*;\s*([^\s/();,]+)", re.IGNORECASE)


def names_contact(user_agent: str) -> bool:
    """Whether there is a URL or a mail address in it that can lead to somebody. Names under ``.example`` are for
    documentation (RFC 2606): what stands in a preset is nobody's address."""
    hosts = [*_URL_HOST.findall(user_agent), *_MAIL_HOST.findall(user_agent)]
    return any(not host.rstrip(".").lower().endswith(".example") for host in hosts)


def product_token(user_agent: str) -> str:
    """The product's name, lower case: ``ddmpi`` of ``ddmpi/1.0 (+https://...)``; empty if there is none. Of a browser's
    disguise it is the name that follows ``compatible``: nobody means us by a group for ``Mozilla``."""
    product = _PRODUCT.match(user_agent)
    name = "" if product is None else product[1].lower()
    disguised = _COMPATIBLE.search(user_agent) if name == "mozilla" else None
    return name if disguised is None else disguised[1].lower()
