"""Which license a text names, as an SPDX license expression.

Decides what the texts mean that GBIF, the Encyclopedia of Life, iNaturalist, Wikimedia, Flickr and Europeana have in
their columns of licenses and rights: addresses, codes and names. Must not know: tables, files, what a license allows.

- A text is understood as a whole or not at all: one word that no table here has, two licenses, or a version that does
  not exist, and it names none. So "CC BY 4.0 or all rights reserved" does not, nor does "not under CC BY 4.0".
- Nothing is added to a text. "CC BY" is no version of it: it becomes ``LicenseRef-CC-BY``, which is how SPDX writes a
  license that its list does not have (its annex on license expressions). "CC0" is CC0-1.0, as there is no other one.
- What comes out goes in again: ``spdx_of(spdx_of(text)) == spdx_of(text)``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

MAX_CHARS: Final = 500
"""Longer texts are somebody's prose."""
ALL_RIGHTS_RESERVED: Final = "LicenseRef-all-rights-reserved"
PUBLIC_DOMAIN: Final = "LicenseRef-public-domain"
NO_KNOWN_COPYRIGHT: Final = "LicenseRef-no-known-copyright-restrictions"
US_GOVERNMENT: Final = "LicenseRef-US-government-work"
_REF: Final = "LicenseRef-"

_KINDS: Final = ("BY", "BY-SA", "BY-NC", "BY-ND", "BY-NC-SA", "BY-NC-ND")
_VERSIONS: Final = ("1.0", "2.0", "2.1", "2.5", "3.0", "4.0")
_PORTS: Final = frozenset(
    {
        "AR", "AT", "AU", "AZ", "BE", "BG", "BR", "CA", "CH", "CL", "CN", "CO", "CR", "CZ", "DE", "DK", "EC",
        "EE", "EG", "ES", "FI", "FR", "GE", "GR", "GT", "HK", "HR", "HU", "IE", "IGO", "IL", "IN", "IT", "JP",
        "KR", "LU", "MK", "MT", "MX", "MY", "NG", "NL", "NO", "NZ", "PE", "PH", "PL", "PR", "PT", "RO", "RS",
        "RU", "SCOTLAND", "SE", "SG", "SI", "TH", "TW", "UA", "UG", "UK", "US", "VE", "VN", "ZA",
    }
)  # fmt: skip
"""Places for which Creative Commons has published versions of their own, up to 3.0."""
_PORTED: Final = frozenset(
    {
        "CC-BY-2.5-AU", "CC-BY-3.0-AT", "CC-BY-3.0-AU", "CC-BY-3.0-DE", "CC-BY-3.0-IGO", "CC-BY-3.0-NL", "CC-BY-3.0-US",
        "CC-BY-NC-3.0-DE", "CC-BY-NC-ND-3.0-DE", "CC-BY-NC-ND-3.0-IGO", "CC-BY-NC-SA-2.0-DE", "CC-BY-NC-SA-2.0-FR",
        "CC-BY-NC-SA-2.0-UK", "CC-BY-NC-SA-3.0-DE", "CC-BY-NC-SA-3.0-IGO", "CC-BY-ND-3.0-DE", "CC-BY-SA-2.0-UK",
        "CC-BY-SA-2.1-JP", "CC-BY-SA-3.0-AT", "CC-BY-SA-3.0-DE", "CC-BY-SA-3.0-IGO",
    }
)  # fmt: skip
"""Those of them that the SPDX license list has."""
_UNPORTED: Final = frozenset(f"CC-{kind}-{version}" for kind in _KINDS for version in _VERSIONS if version != "2.1")
_OTHERS: Final = (
    *("CC0-1.0", "CC-PDM-1.0", "CC-PDDC", "ODbL-1.0", "ODC-By-1.0", "PDDL-1.0", "OGL-UK-1.0", "OGL-UK-2.0"),
    *("OGL-UK-3.0", "etalab-2.0", "LAL-1.3", "GFDL-1.2-only", "GFDL-1.2-or-later", "GFDL-1.3-only"),
    *("GFDL-1.3-or-later", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "MIT", "Apache-2.0"),
)
_RIGHTS_STATEMENTS: Final = (
    *("InC", "InC-OW-EU", "InC-EDU", "InC-NC", "InC-RUU", "NoC-CR", "NoC-NC", "NoC-OKLR", "NoC-US", "CNE", "UND"),
    "NKC",
)
"""Of rightsstatements.org, all in version 1.0: statements for which SPDX has no identifiers."""
_OF_EUROPEANA: Final = ("rr-f", "rr-p", "rr-r", "orphan-work-eu", "out-of-copyright-non-commercial", "unknown")


class _Found(NamedTuple):
    """A license as it is named; what is not said is empty."""

    name: str
    """``CC-BY-NC`` ..., or an identifier that is whole."""
    version: str = ""
    port: str = ""


def _squeezed(text: str) -> str:
    """Return the letters and digits of a text, small and without accents."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if letter.isalnum())


# The names of the elements in the deeds of Creative Commons, in the languages that tables have them in.
_ELEMENTS: Final[Mapping[str, str]] = {
    "BY": "by, Attribution, Atribución, Reconocimiento, Atribuição, Atribució, Reconeixement, Attribuzione, Paternité, "
    "Namensnennung, Naamsvermelding, Erkännande, Navngivelse, Uznanie autorstwa, 表示, 署名, 姓名標示",
    "NC": "nc, NonCommercial, No commercial use, NoComercial, NãoComercial, Uso não comercial, "
    "Non commerciale, Pas d'utilisation commerciale, Utilisation non commerciale, Nicht kommerziell, "
    "Keine kommerzielle Nutzung, NietCommercieel, IckeKommersiell, IkkeKommersiell, Użycie niekomercyjne, 非営利, "
    "非商业性使用, 非商業性",
    "SA": "sa, ShareAlike, CompartirIgual, CompartilhaIgual, Partilha nos termos da mesma licença, "
    "Condividi allo stesso modo, Partage dans les mêmes conditions, Partage à l'identique, "
    "Partage des conditions initiales à l'identique, Weitergabe unter gleichen Bedingungen, GelijkDelen, DelaLika, "
    "Na tych samych warunkach, 継承, 相同方式共享, 相同方式分享",
    "ND": "nd, NoDerivatives, NoDerivs, No derivative works, SinDerivadas, SinObraDerivada, Sin derivar, "
    "SemDerivações, Sem Derivados, Non opere derivate, Pas de modification, Pas de modifications, Keine Bearbeitung, "
    "Keine Bearbeitungen, GeenAfgeleideWerken, IngaBearbetningar, Bez utworów zależnych, 改変禁止, 禁止演绎, 禁止改作",
    "CC0": "cc0, CCZero, Creative Commons Zero",
    "CC-PDM": "Public Domain Mark, pdm",
    "PD": "Public domain, Public Domain Dedication, pd, Gemeinfrei, Domaine public, Dominio público, "
    "Domínio público, Pubblico dominio, Dominio pubblico, Publiek domein",
    "CC": "cc, Creative Commons",
    "": "License, Public License, Licence, Licencia, Licencia de, Licença, Licenza, Lizenz, Licentie, Licens, "
    "Version, v, migrated, This work is licensed under a, This work is licensed under the, "
    "This work is licensed under, Licensed under, "
    "Released under, Some rights reserved, International, Internacional, Internazionale, Internationaal, Unported, "
    "Non transposé, Nicht portiert, Generic, Genérica, Genérico, Generico, Générique, Universal, 国际, 国際",
}
"""Meaning -> words; what means nothing is what may stand beside a name."""
_PLACES: Final = {"Germany": "DE", "Deutschland": "DE", "Austria": "AT", "Österreich": "AT", "Switzerland": "CH",
                  "Schweiz": "CH", "France": "FR", "Spain": "ES", "España": "ES", "Italy": "IT", "Italia": "IT",
                  "Netherlands": "NL", "Nederland": "NL", "Brazil": "BR", "Brasil": "BR", "Canada": "CA",
                  "Australia": "AU", "New Zealand": "NZ", "Japan": "JP", "United Kingdom": "UK",
                  "England and Wales": "UK", "United States": "US", "Estonia": "EE", "Eesti": "EE"}  # fmt: skip
_WHOLE: Final[Mapping[str, str]] = {
    ALL_RIGHTS_RESERVED: "All rights reserved, Copyright all rights reserved, Alle Rechte vorbehalten, "
    "Tous droits réservés, Todos los derechos reservados, Todos os direitos reservados, Tutti i diritti riservati, "
    "Alle rechten voorbehouden, Tots els drets reservats",
    NO_KNOWN_COPYRIGHT: "No known copyright restrictions, No known copyright",
    US_GOVERNMENT: "United States Government Work, US Government Work, U.S. Government Works",
    "LicenseRef-GFDL": "gfdl, GNU Free Documentation License",
    "LicenseRef-GFDL-1.2": "gfdl 1.2",
    "LicenseRef-GFDL-1.3": "gfdl 1.3",
    "CC-BY": "Attribution License",  # Flickr's name; "Attribution" alone is another license on Wikimedia
    "ODbL-1.0": "ODbL, Open Database License, Open Database License 1.0",
    "PDDL-1.0": "PDDL",
    "OGL-UK-3.0": "Open Government Licence v3.0",
    "CC-PDDC": "Creative Commons Public Domain Dedication and Certification",
}


def _words(table: Mapping[str, str]) -> dict[str, str]:
    """Return meanings by squeezed word."""
    return {_squeezed(word): meaning for meaning, words in table.items() for word in words.split(", ")}


_MEANINGS: Final = _words(_ELEMENTS)
_PORT_WORDS: Final = {_squeezed(word): port for word, port in _PLACES.items()} | {p.casefold(): p for p in _PORTS}
_VERSION_WORDS: Final = {version.replace(".", ""): version for version in _VERSIONS} | {
    version[0]: version for version in _VERSIONS if version.endswith(".0")
}
_NAMES: Final = {
    **_words(_WHOLE),
    **{_squeezed(name): name for name in _OTHERS},
    **{_squeezed(f"RightsStatements-{name}-1.0"): f"{_REF}RightsStatements-{name}-1.0" for name in _RIGHTS_STATEMENTS},
    **{_squeezed(f"Europeana-{name}"): f"{_REF}Europeana-{name}" for name in _OF_EUROPEANA},
    **{_squeezed(name.removeprefix(_REF)): name for name in _WHOLE},
}


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(sorted(words, key=len, reverse=True)))


_WORD: Final = _any_of([*_MEANINGS, *_VERSION_WORDS])
_PORT: Final = _any_of(_PORT_WORDS)
_ADDRESS: Final = re.compile(
    r"(?:https?:)?(?://)?(?:www\.|i\.)?"
    r"(creativecommons\.org|rightsstatements\.org|opendatacommons\.org|europeana\.eu|flickr\.com|usa\.gov"
    r"|nationalarchives\.gov\.uk)"
    r"(/[^\s\[\]()<>,;\"']*)",
    re.IGNORECASE,
)
_PATHS: Final[tuple[tuple[str, re.Pattern[str], str], ...]] = tuple(
    (host, re.compile(pattern), name)
    for host, pattern, name in (
        ("creativecommons.org", r"/(?:publicdomain|licen[sc]es|p)/zero(?:/1\.0)?(?:/[a-z]{2})?", "CC0-1.0"),
        ("creativecommons.org", r"/share-your-work/public-domain/cc0", "CC0-1.0"),
        ("creativecommons.org", r"/(?:publicdomain|licen[sc]es|p)/mark(?:/1\.0)?", "CC-PDM-1.0"),
        ("creativecommons.org", r"/licen[sc]es/publicdomain", "CC-PDDC"),
        ("opendatacommons.org", r"/licenses/pddl(?:/1[.-]0)?", "PDDL-1.0"),
        ("opendatacommons.org", r"/licenses/by(?:/1[.-]0)?", "ODC-By-1.0"),
        ("opendatacommons.org", r"/licenses/odbl(?:/1[.-]0)?", "ODbL-1.0"),
        ("flickr.com", r"/commons/usage", NO_KNOWN_COPYRIGHT),
        ("usa.gov", r"/copyright\.shtml|/government-works|/government-copyright", US_GOVERNMENT),
        ("nationalarchives.gov.uk", r"/doc/open-government-licence/version/3", "OGL-UK-3.0"),
        ("nationalarchives.gov.uk", r"/doc/open-government-licence/version/2", "OGL-UK-2.0"),
        ("nationalarchives.gov.uk", r"/doc/open-government-licence/version/1", "OGL-UK-1.0"),
    )
)
_CC_PATH: Final = re.compile(
    r"/(?:licen[sc]es|l)/(by(?:-(?:nc|nd|sa)){0,2})(?:/(\d\.\d)(?:/([a-z]{2}|igo|scotland))?)?(?:/80x15|/88x31)?"
)
_NOT_NAMING: Final = re.compile(r"(?:/(?:legalcode|deed)(?:\.[a-z_-]+)?|\.(?:png|html?|php))?[/.]*$")
"""How the address of the same license may end."""
_HOLDER: Final = re.compile(
    r"(?:\(c\)|©)[^()]*, ((?:some|all|no) rights reserved)(?: \(([^()]*)\))?(?:, uploaded by .*)?", re.IGNORECASE
)
"""What iNaturalist writes: "(c) A Name, some rights reserved (CC BY-NC)"."""


@lru_cache(maxsize=4096)
def spdx_of(text: str) -> str | None:
    """Return the license that a text names: an identifier of the SPDX license list, or ``LicenseRef-...`` for one that
    the list does not have; None where that cannot be told."""
    if len(text) > MAX_CHARS:
        return None
    held = _HOLDER.fullmatch(text.strip())
    if held is not None:
        text = held[2] or held[1]
    found = [_of_address(host.lower(), path.lower()) for host, path in _ADDRESS.findall(text)]
    words = _squeezed(_ADDRESS.sub(" ", text).strip().removeprefix(_REF))
    if words and not (found and _says_nothing(words)):
        found.append(_of_words(words))
    named = [each for each in found if each is not None]
    # All have to be one license, of which one may say more than another.
    said = [set(filter(None, column)) for column in zip(*named, strict=True)]
    if not said or len(named) < len(found) or any(len(values) > 1 for values in said):
        return None
    return _expression(_Found(*("".join(values) for values in said)))


def _of_address(host: str, address: str) -> _Found | None:
    path = _NOT_NAMING.sub("", re.split(r"[?#]", address)[0])
    for known, pattern, name in _PATHS:
        if host == known and pattern.fullmatch(path):
            return _Found(name)
    if host == "rightsstatements.org":
        statement = re.fullmatch(r"/(?:vocab|page|data)/([a-z-]+)/1\.0", path)
        name = "" if statement is None else _NAMES.get(_squeezed(f"RightsStatements-{statement[1]}-1.0"), "")
        return _Found(name) if name else None
    if host == "europeana.eu":
        rights = re.fullmatch(r"(?:/portal)?/rights/([a-z-]+)", path)
        name = "" if rights is None else _NAMES.get(_squeezed(f"Europeana-{rights[1]}"), "")
        return _Found(name) if name else None
    license_ = _CC_PATH.fullmatch(path) if host == "creativecommons.org" else None
    if license_ is None:
        return None
    elements, version, port = license_.groups(default="")
    return _creative_commons(elements.upper().split("-"), version, port.upper())


def _of_words(words: str) -> _Found | None:
    """Return what squeezed words name, None if one of them is not known."""
    if words in _NAMES:
        return _Found(_NAMES[words])
    meanings: list[str] = []
    versions: set[str] = set()
    ports: set[str] = set()
    at = 0
    while at < len(words):
        match = _WORD.match(words, at)
        if match is None:
            return None
        at = match.end()
        if match[0] in _VERSION_WORDS:
            versions.add(_VERSION_WORDS[match[0]])
            place = None if _WORD.match(words, at) else _PORT.match(words, at)
            if place is not None:
                ports.add(_PORT_WORDS[place[0]])
                at = place.end()
        elif _MEANINGS[match[0]]:
            meanings.append(_MEANINGS[match[0]])
    if len(versions) > 1 or len(ports) > 1:
        return None
    return _named(meanings, "".join(versions), "".join(ports))


def _says_nothing(words: str) -> bool:
    """Return whether these are only words that stand beside the name of a license."""
    return re.sub(_WORD, lambda match: _MEANINGS.get(match[0], match[0]), words) in {"", "CC"}


def _named(meanings: list[str], version: str, port: str) -> _Found | None:
    said = set(meanings) - {"CC"}
    whole = {"CC0": "CC0-1.0", "CC-PDM": "CC-PDM-1.0"}.get("".join(said - {"PD"}))
    if whole is not None:
        return _Found(whole) if version in {"", "1.0"} and not port else None
    if said == {"PD"}:
        return None if version or port else _Found(PUBLIC_DOMAIN)
    groups = _groups([meaning for meaning in meanings if meaning != "CC"])
    if not groups or any(group != groups[0] for group in groups):
        return None
    is_named = "CC" in meanings or len(groups[0]) > 1  # "by" alone is a word, "Attribution" another license
    return _creative_commons(groups[0], version, port) if is_named or (version and groups[0] == {"BY"}) else None


def _groups(meanings: list[str]) -> list[set[str]]:
    """Return the elements of each license that is named: "CC BY / CC BY-NC" are two, since each begins with BY."""
    groups: list[set[str]] = []
    for meaning in meanings:
        if meaning == "BY":
            groups.append(set())
        if not groups:
            return []
        groups[-1].add(meaning)
    return groups


def _creative_commons(elements: Iterable[str], version: str, port: str) -> _Found | None:
    said = set(elements)
    kind = next((kind for kind in _KINDS if set(kind.split("-")) == said), None)
    is_possible = version in _VERSIONS or not version
    if kind is None or not is_possible or (port and (port not in _PORTS or version in {"", "4.0"})):
        return None
    return None if version == "2.1" and not port else _Found(f"CC-{kind}", version, port)


def _expression(found: _Found) -> str:
    text = "-".join(filter(None, found))
    is_listed = text in _UNPORTED or text in _PORTED or text in _OTHERS or text.startswith(_REF)
    return text if is_listed else f"{_REF}{text}"
