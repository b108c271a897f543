r"""Check by the header that a CT image's values are CT numbers in Hounsfield units.

Not every CT Image holds HU: spectral scanners and perfusion software write maps of effective
atomic number, iodine or blood flow as CT Images. The header tells in Rescale Type (PS3.3
C.11.1.1.2), in Image Type from value 3 on (C.8.2.1.1.1, C.8.15.2.1.1.5, both of Supplement 188)
and in Real World Value Mapping. Maps that no header marks are found by their values
(`io.dicom.hu_check`).
"""

from __future__ import annotations

import re
from typing import Any

from pydicom import Dataset

from cvsct.io.dicom.header import quiet, text

HU, UNSPECIFIED = "HU", "US"
"""Rescale Type, read: Hounsfield units, or values of a unit that only they themselves can show."""

_UNITS = {
    "OD": "optical density",
    "MGML": "mg/ml",
    "Z_EFF": "effective atomic number",
    "ED": "electron density",
    "EDW": "electron density relative to water",
    "HU_MOD": "modified Hounsfield units, changed on purpose where a material is",
    "PCT": "percent",
}
"""Defined terms of Rescale Type that are no Hounsfield units."""
_COMMON_WORDS = frozenset(
    re.findall(
        r"\S+",
        """MG/ML MG/CC MG/CM3 MGI/ML G/CM3 G/CC G/ML KG/M3 1/CM CM-1 1/MM % PERCENT FRACTION Z ZEFF
    CPS CNTS BQML S SEC MS MIN ML/MIN ML/100G ML/100G/MIN ML/100ML ML/100ML/MIN NONE NORMALIZED
    UNSPECIFIED UNITLESS GRAY GY CGY DOSE DENSITY IODINE WATER""",
    )
)
"""Other words that a refusal may repeat; the rest is free text, which may hold anything."""

_NAMES = ("hounsfield", "hounsfieldunit", "hounsfieldunits")
_MISSPELLED = 2
"""Most letters by which a spelling of the unit's name may differ."""
_BESIDE = frozenset(
    re.findall(r"\w+", "unit units u value values number numbers scale ct unite unites einheit")
)
_UNIT_CODES = ("hnsf'u", "hu", "hounsfield")

_MAPS = {
    "EFF_ATOMIC_NUM": "a map of the effective atomic number",
    "MAT_SPECIFIC": "a map of one material",
    "MAT_FRACTIONAL": "a map of a material's fraction",
    "MAT_MODIFIED": "an image modified where a material is",
    "MAT_VALUE_BASED": "an image selected by a material's values",
    "ELECTRON_DENSITY": "a map of electron density",
    "DIVISION": "a quotient of images",
    "MULTIPLICATION": "a product of images",
    "SUBTRACTION": "a difference of images",
    "STD_DEVIATION": "a map of standard deviations",
    "QUANTITY": "a map of a quantity",
}
"""Defined terms of Image Type value 4 (PS3.3 C.8.16.2.1.4 too) that are no CT numbers."""
_MAP_WORDS = {
    "a map of the effective atomic number": "ZEFF EFFZ EFFECTIVEZ",
    "a map of electron density": "RHOZ EDENSITY",
    "a map of one material": "IODINE WATER CALCIUM URIC GOUT MATDENSITY XENON KRYPTON",
    "a map of a material's fraction": "FATFRACTION",
    "a perfusion map": "CBF CBV RCBF RCBV MTT TTP TMAX PERFUSION PERMEABILITY",
}
"""Words that makers use; those of which a term is made of."""
_MAP_OF = {word: kind for kind, words in _MAP_WORDS.items() for word in words.split()}
_TAKEN_AWAY = frozenset(re.findall(r"\w+", "REMOVED REMOVAL NO NON WITHOUT VNC SUPPRESSED MINUS"))
REMOVED = ("MAT_REMOVED", "VNC")
"""Values of Image Type for virtual images without a material, in HU."""


def unit_of(dataset: Dataset) -> str:
    """`HU`, `US` where the header leaves the unit open, or an empty text where it is another."""
    word = text(dataset, "RescaleType")
    if word.upper() in ("US", "UNSPECIFIED"):
        return UNSPECIFIED
    return HU if not word or is_hounsfield(word) else ""


def not_hu(dataset: Dataset) -> str:
    """Why these values are no CT numbers in HU as far as the header tells, or an empty text."""
    kind = _map_of(text(dataset, "ImageType"))
    if kind:
        return kind
    if not unit_of(dataset):
        return f"Rescale Type is not HU but {_unit_in_words(text(dataset, 'RescaleType'))}"
    codes = _mapped_units(dataset)
    if codes and not text(dataset, "RescaleType") and not any(map(_is_hu_code, codes)):
        return "Real World Value Mapping names another unit than HU"
    return ""


def is_hounsfield(word: str) -> bool:
    """Whether a Rescale Type means Hounsfield units, in any spelling that archives hold.

    Example:
        >>> [is_hounsfield(word) for word in ("hu", "Houndsfield Unit", "HU_MOD", "MGML")]
        [True, True, False, False]
    """
    if any(char.isdigit() for char in word):
        return False
    words = re.findall(r"[^\W\d_]+", word.casefold())
    joined = "".join(words)
    if joined == "hu" or min(_distance(joined, name) for name in _NAMES) <= _MISSPELLED:
        return True
    units = [word for word in words if word == "hu" or _distance(word, _NAMES[0]) <= _MISSPELLED]
    return bool(units) and all(word in units or word in _BESIDE for word in words)


def without_material(dataset: Dataset) -> bool:
    """Whether the image shows what a scan would have been without a material (virtual)."""
    return any(value in REMOVED for value in _from_third(text(dataset, "ImageType")))


def _map_of(image_type: str) -> str:
    for value in _from_third(image_type):
        term = re.sub(r"[^A-Z0-9]+", "_", value).strip("_")
        if term in _MAPS:
            return f"{_MAPS[term]} (Image Type {term}), no HU"
        words = term.split("_")
        if _TAKEN_AWAY.intersection(words):
            continue
        for word in (*words, term.replace("_", "")):
            if word in _MAP_OF and (word != "PERFUSION" or image_type.startswith("DERIVED")):
                return f"{_MAP_OF[word]} (Image Type with {word}), no HU"
    return ""


def _from_third(image_type: str) -> list[str]:
    return [value.strip().upper() for value in image_type.split("\\")[2:]]


def _unit_in_words(word: str) -> str:
    """A Rescale Type in words; a text that is not a known unit is never repeated."""
    term = word.strip().upper()
    if term in _UNITS:
        return f"{term} ({_UNITS[term]})"
    return term if term in _COMMON_WORDS else "a word that is no known unit"


def _mapped_units(dataset: Dataset) -> list[str]:
    with quiet():
        try:
            items: Any = dataset.get("RealWorldValueMappingSequence") or []
            return [
                text(unit, "CodeValue")
                for item in items
                for unit in item.get("MeasurementUnitsCodeSequence") or []
            ]
        except Exception:  # a damaged value is an absent value
            return []


def _is_hu_code(code: str) -> bool:
    return code.casefold().strip("[]{} ") in _UNIT_CODES


def _distance(one: str, other: str) -> int:
    """Letters to insert, remove or exchange to make one word the other (Levenshtein)."""
    if abs(len(one) - len(other)) > _MISSPELLED:
        return abs(len(one) - len(other))
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, row = row, [i]
        for j, expected in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != expected)))
    return row[-1]
