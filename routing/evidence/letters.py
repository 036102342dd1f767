"""Spelling of languages: their letters beyond a to z, and typical endings of their words.

The tables are written by hand. An ending is listed for every language that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

OWN: Mapping[str, str] = MappingProxyType(
    {"sv": "åäö", "da": "åæø", "no": "åæø", "de": "äöüß", "fi": "äö", "is": "ðþáíóúýæö"}
)
"""The letters beyond a to z that are evidence for each language."""

USED: Mapping[str, str] = MappingProxyType(
    {
        "en": "",
        "sv": "åäöéà",
        "da": "åæøéöäü",
        "no": "åæøéòôóàêâ",
        "de": "äöüß",
        "fi": "åäö",
        "nl": "éèëïöüêç",
    }
)
"""Maps each language to letters beyond a to z that its words may contain. Any other such letter is evidence
against the language.
"""

ELSEWHERE = "ðþáíóúýñçãõąęłśźżćńčšžřěůőűăşșțğıìùâîûœāēīūėģķļņťďňľĺ"
"""Letters that are evidence for `xx`, any language that is not a candidate. A letter that a candidate
language uses does not count.
"""

_ENDINGS = {
    "sv": """
        arna orna erna arnas ernas ornas andet anden ande ade ades are aren arens ar or het heten
        heter skt iskt iska igt ligt liga tion tionen tioner tionella ning ningen ningar ningarna
        ingar ats as ast aste tt dd ddes ligen ism erar erat erade erades era itet iteten iell iella
        else elser samt lös löst ör öra ött att isk gen nad naden ens ets ts
    """,
    "da": """
        erne ernes ende ede edes else elsen elser hed heden heder ligt igt lige tion tionen tioner
        isk iske sk ere erer eret erede et es dt gt ning ningen ninger iel itet iteten nad skab
        skabet er ets ens
    """,
    "no": """
        ene enes ende ert elsen elser else het heten heter lig lige ig isk iske sjon sjonen sjoner
        sjonar ere erer erte et te dde ane anes ar ande inga ingar ingane leg lege skap skapet itet
        iteten ning ningen ninger inger er ens ets a nad
    """,
    "en": """
        ing ings ed ly tion tions ness ment ments able ible ous ful less ity ies ght ough est ive
        ish ck ical ally ers er
    """,
    "de": """
        ung ungen keit heit lich liche lichen licher isch ische ischen schaft en em est te ten st
        eln ern tz ierung iert
    """,
    "nl": """
        en ing ingen heid heden lijk lijke isch ische tje tjes oor aar eer sch ijk eren elen aan oek
        eid eit
    """,
    "fi": """
        nen sen ssa ssä sta stä lla llä lta ltä lle ksi aan ään een iin ja jä ia iä at ät vat vät
        tää taa mme tte ko kö kin ista issa illa ille oon uun nut nyt us ys uus yys den ien jen ksen
        tty ttu
    """,
    "is": """
        ur um inn inu unni inni anna unum num nni aði uðu ðu ði inum arnar irnar ust ið uð sins ir
        urinn una ina ana ndi st gar nar að
    """,
    "es": "ción mente ado ada idad os as ias",
    "fr": "aux eux ent ité ais ait tion ment",
    "it": "zione ità ando endo",
    "pt": "ção mente dade ias os as",
    "pl": "ów ski ego ować ość",
    "tr": "lar ler yor dır ları leri",
}

ENDINGS: Mapping[str, frozenset[str]] = MappingProxyType(
    {language: frozenset(endings.split()) for language, endings in _ENDINGS.items()}
)
"""Maps each language to endings of two to five letters that are typical of its words."""
LONGEST_ENDING, SHORTEST_ENDING = 5, 2
