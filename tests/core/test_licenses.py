"""Licenses as the tables of the field write them, and texts that must not be taken for one."""

from __future__ import annotations

import random
import re

import pytest

from ddmpi.core.licenses import (
    ALL_RIGHTS_RESERVED,
    MAX_CHARS,
    NO_KNOWN_COPYRIGHT,
    PUBLIC_DOMAIN,
    US_GOVERNMENT,
    spdx_of,
)

NAMED = {
    # GBIF: its enumeration, and what publishers write
    "CC_BY_4_0": "CC-BY-4.0",
    "CC_BY_NC_4_0": "CC-BY-NC-4.0",
    "CC0_1_0": "CC0-1.0",
    "http://creativecommons.org/publicdomain/zero/1.0/legalcode": "CC0-1.0",
    "http://creativecommons.org/licenses/by/4.0/legalcode": "CC-BY-4.0",
    "https://creativecommons.org/licenses/by-nc/4.0/": "CC-BY-NC-4.0",
    "http://creativecommons.org/licences/by-nc-sa/3.0/legalcode": "CC-BY-NC-SA-3.0",
    "https://creativecommons.org/licenses/by/4.0/legalcode#languages": "CC-BY-4.0",
    "https://creativecommons.org/licenses/by/4.0/deed.pt_BR": "CC-BY-4.0",
    "https://creativecommons.org/licenses/by-sa/4.0/?ref=chooser-v1": "CC-BY-SA-4.0",
    "https://i.creativecommons.org/l/by-nc/4.0/80x15.png": "CC-BY-NC-4.0",
    "creativecommons.org/licenses/by-nd/2.0": "CC-BY-ND-2.0",
    "//creativecommons.org/licenses/by/4.0/": "CC-BY-4.0",
    "HTTP://CREATIVECOMMONS.ORG/LICENSES/BY-NC-ND/3.0/": "CC-BY-NC-ND-3.0",
    "http://creativecommons.org/licenses/by-nd-nc/1.0/": "CC-BY-NC-ND-1.0",
    "http://creativecommons.org/licenses/by-nc-sa/3.0/de/": "CC-BY-NC-SA-3.0-DE",
    "https://creativecommons.org/licenses/by/3.0/igo/legalcode": "CC-BY-3.0-IGO",
    "https://creativecommons.org/licenses/by/2.5/ca/deed.fr": "LicenseRef-CC-BY-2.5-CA",
    "http://creativecommons.org/licenses/by-nc/": "LicenseRef-CC-BY-NC",
    "http://www.opendatacommons.org/licenses/pddl/1.0": "PDDL-1.0",
    "http://opendatacommons.org/licenses/odbl/1.0/": "ODbL-1.0",
    "CC-BY 4.0": "CC-BY-4.0",
    "CC BY-NC 4.0": "CC-BY-NC-4.0",
    "CC BY-SA-NC, no commercial use": "LicenseRef-CC-BY-NC-SA",
    "Creative Commons Attribution Non Commercial (CC-BY-NC) 4.0 License": "CC-BY-NC-4.0",
    "Creative Commons - Atribuição 4.0 Internacional http://creativecommons.org/licenses/by/4.0/deed.pt_BR": (
        "CC-BY-4.0"
    ),
    "CreativeCommons \u2013 Attribution Share-Alike (by-sa) 4.0": "CC-BY-SA-4.0",
    "Attribution 4.0 International (CC BY 4.0)": "CC-BY-4.0",
    "CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/legalcode#languages)": "CC-BY-4.0",
    "This work is licensed under a Creative Commons CCZero 1.0 License "
    "http://creativecommons.org/publicdomain/zero/1.0/legalcode": "CC0-1.0",
    "This work is licensed under a Creative Commons Attribution-NonCommercial-ShareAlike 4.0 License "
    "(https://creativecommons.org/licenses/by-nc-sa/4.0/).": "CC-BY-NC-SA-4.0",
    "CC BY (https://creativecommons.org/licenses/by/4.0/)": "CC-BY-4.0",
    "CC0 1.0 (Public-domain)": "CC0-1.0",
    # iNaturalist
    "CC-BY-NC": "LicenseRef-CC-BY-NC",
    "cc-by-nc": "LicenseRef-CC-BY-NC",
    "CC0": "CC0-1.0",
    "(c) Ann O'Nym, some rights reserved (CC BY-NC)": "LicenseRef-CC-BY-NC",
    "(c) Ann O'Nym, all rights reserved, uploaded by Ann": ALL_RIGHTS_RESERVED,
    "(c) Ann O'Nym, no rights reserved (CC0)": "CC0-1.0",
    # Encyclopedia of Life
    "cc-by-nc-sa-3.0": "CC-BY-NC-SA-3.0",
    "http://creativecommons.org/licenses/publicdomain/": "CC-PDDC",
    "public domain": PUBLIC_DOMAIN,
    "http://www.flickr.com/commons/usage/": NO_KNOWN_COPYRIGHT,
    "No known copyright restrictions": NO_KNOWN_COPYRIGHT,
    # Wikimedia
    "CC BY-SA 3.0 de": "CC-BY-SA-3.0-DE",
    "CC BY-SA 2.5 se": "LicenseRef-CC-BY-SA-2.5-SE",
    "cc-by-sa-3.0-migrated": "CC-BY-SA-3.0",
    "pd": PUBLIC_DOMAIN,
    "GFDL": "LicenseRef-GFDL",
    "GFDL-1.2-or-later": "GFDL-1.2-or-later",
    # Flickr
    "All Rights Reserved": ALL_RIGHTS_RESERVED,
    "Attribution License": "LicenseRef-CC-BY",
    "Attribution-NonCommercial-NoDerivs License": "LicenseRef-CC-BY-NC-ND",
    "Public Domain Dedication (CC0)": "CC0-1.0",
    "Public Domain Dedication": PUBLIC_DOMAIN,
    "Public Domain Mark": "CC-PDM-1.0",
    "United States Government Work": US_GOVERNMENT,
    # Europeana
    "http://rightsstatements.org/vocab/InC/1.0/": "LicenseRef-RightsStatements-InC-1.0",
    "https://rightsstatements.org/page/NoC-OKLR/1.0/?language=en": "LicenseRef-RightsStatements-NoC-OKLR-1.0",
    "http://www.europeana.eu/rights/rr-f/": "LicenseRef-Europeana-rr-f",
    "http://creativecommons.org/publicdomain/mark/1.0/": "CC-PDM-1.0",
    # words of other languages
    "Creative Commons Namensnennung - Nicht kommerziell - Keine Bearbeitungen 3.0 Deutschland": "CC-BY-NC-ND-3.0-DE",
    "Creative Commons Atribución-NoComercial-CompartirIgual 4.0 Internacional": "CC-BY-NC-SA-4.0",
    "Licence Creative Commons Attribution - Pas d\u2019Utilisation Commerciale 4.0 International": "CC-BY-NC-4.0",
    "クリエイティブ・コモンズ": None,
    "CC 表示-継承 4.0 国際": "CC-BY-SA-4.0",
    "Alle Rechte vorbehalten": ALL_RIGHTS_RESERVED,
    "Tous droits réservés": ALL_RIGHTS_RESERVED,
    "Domaine public": PUBLIC_DOMAIN,
    # titles of the licenses themselves
    "Creative Commons Attribution 4.0 International Public License": "CC-BY-4.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "Open Database License": "ODbL-1.0",
    # spelled by SPDX
    "CC-BY-SA-4.0": "CC-BY-SA-4.0",
    "cc-pdm-1.0": "CC-PDM-1.0",
    "LicenseRef-CC-BY-2.5-CA": "LicenseRef-CC-BY-2.5-CA",
    "Creative Commons Zero v1.0 Universal": "CC0-1.0",
}
NOT_NAMED = [
    *("", " ", "unknown", "not applicable", "UNSPECIFIED", "see website", "1", "4", "Copyright", "© A. Name", "free"),
    *("by", "by-line", "Attribution", "Creative Commons", "CC", "nc", "CC NC", "CC BY-SA-ND", "sa-by"),
    *("CC0 / CC BY 4.0", "CC BY 4.0 CC0", "CC0 1.0 de"),
    *("not CC-BY 4.0", "CC BY 4.0 or all rights reserved", "CC BY / CC BY-NC", "CC BY 4.0, CC BY 3.0"),
    *("CC-BY 9.0", "CC BY 2.1", "CC BY 4.0 de", "CC0 2.0", "public domain 1.0", "cc by 4.0.1", "CC-BY-SA-3.0,2.5,2.0"),
    "CC BY 4.0 (https://creativecommons.org/licenses/by/3.0/)",
    "http://creativecommons.org/licenses/by/9.0/",
    "http://creativecommons.org/licenses/by/3.0/xx/",
    "http://creativecommons.org/licenses/by-evil/4.0/",
    "http://creativecommons.org/",
    "https://example.org/creativecommons.org/licenses/by/4.0/",
    "https://creativecommons.org.example/licenses/by/4.0/",
    "https://mycreativecommons.org/licenses/by/4.0/",
    "http://rightsstatements.org/vocab/Other/1.0/",
    "All rights reserved, except the text: https://creativecommons.org/licenses/by/4.0/",
    "CC BY 4.0" + " " * MAX_CHARS,
]


@pytest.mark.parametrize("text", NAMED)
def test_texts_of_the_field_name_their_license(text: str) -> None:
    assert spdx_of(text) == NAMED[text]


@pytest.mark.parametrize("text", NOT_NAMED)
def test_what_cannot_be_told_is_no_license(text: str) -> None:
    assert spdx_of(text) is None


def test_what_comes_out_goes_in_again() -> None:
    """And SPDX allows it: an identifier, or a reference of letters, digits, dots and hyphens."""
    for expression in filter(None, NAMED.values()):
        assert spdx_of(expression) == expression
        assert re.fullmatch(r"[A-Za-z0-9.-]+", expression)


PIECES = [
    *(
        "CC",
        "BY",
        "nc",
        "SA",
        "ND",
        "0",
        "4.0",
        "3.0",
        "2.1",
        "de",
        "igo",
        "-",
        " ",
        "/",
        "(",
        "license",
        "zero",
        "mark",
    ),
    *("public domain", "http://creativecommons.org/licenses/", "by/3.0/", "\u0130", "\u0301"),
]


def test_any_text_names_a_license_or_none() -> None:
    rng = random.Random(1)
    named = 0
    for _ in range(3_000):
        expression = spdx_of("".join(rng.choices(PIECES, k=rng.randrange(9))))
        named += expression is not None
        assert expression is None or (spdx_of(expression) == expression and re.fullmatch(r"[A-Za-z0-9.-]+", expression))
    assert named > 30
