"""Cells of feature rows that follow from headers: patient, site, stage, scanner and batch."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvsct.core.errors import UsageError
from cvsct.core.files import write_atomic
from cvsct.core.progress import Note
from cvsct.core.text import counted
from cvsct.io.scan_record import ScanGroup, ScanRecord

SITES = ("auto", "institution", "folder")
"""What can label a site."""

SOURCE_STAGE, HARMONIZED_STAGE = "source", "harmonized"

_MIN_SALT_CHARACTERS = 16


def label_scans(
    groups: Sequence[ScanGroup],
    site: str,
    separate_sites: bool,
    salt: bytes | None,
    settings_sha256: str,
) -> list[tuple[Mapping[str, Any], ...]]:
    """Cells of each scan's rows that follow from its header, for each group in order.

    The batch is the acquiring scanner, kernel and tube voltage of the source, the same in all
    stages.

    Args:
        groups: sources with what was derived from them.
        site: one of `SITES`.
        separate_sites: whether the site belongs to a patient's identity.
        salt: key of the pseudonyms; None keeps the IDs.
        settings_sha256: hash of the parameters.
    """
    labels: list[tuple[Mapping[str, Any], ...]] = []
    for group in groups:
        first, stages = group.first, _stages(group.records)
        place = _site_of(first, site)
        patient = f"{place}/{first.patient_id}" if separate_sites else first.patient_id
        patient = pseudonym(patient, salt) if salt is not None else patient
        labels.append(
            tuple(
                {
                    "patient": patient,
                    "study_uid": record.study_uid,
                    "series_uid": record.series_uid,
                    "derived_uid": record.derived_uid,
                    "site": place,
                    "stage": stage,
                    "scanner": first.acquisition.scanner,
                    "kernel": first.acquisition.kernel,
                    **({"kvp": first.acquisition.kvp} if first.acquisition.kvp else {}),
                    "guard_verdict": record.guard_verdict,
                    "settings_sha256": settings_sha256,
                    "harmonized_to": record.harmonized_to,
                    "model_sha256": record.model_sha256,
                    "batch": str(first.acquisition),
                }
                for record, stage in zip(group.records, stages, strict=True)
            )
        )
    return labels


def _site_of(record: ScanRecord, site: str) -> str:
    if site == "folder":
        return record.folder
    return record.institution or (record.folder if site == "auto" else "")


def _stages(records: Sequence[ScanRecord]) -> list[str]:
    """Stage of each scan; of several models' series from one source each names its model."""
    derived = [record for record in records if record.is_derived]
    models = Counter(record.model_sha256 for record in derived)
    stages = []
    for record in records:
        if not record.is_derived:
            stages.append(SOURCE_STAGE)
        elif len(derived) == 1:
            stages.append(HARMONIZED_STAGE)
        else:
            alone = models[record.model_sha256] == 1
            uid = hashlib.sha256(record.derived_uid.encode()).hexdigest()[:8]
            stages.append(f"{HARMONIZED_STAGE}-{record.model_sha256[:8] if alone else uid}")
    return stages


def without_repeats(records: Sequence[ScanRecord], note: Note) -> list[ScanRecord]:
    """The records without those of a series that came before, under another path."""
    kept: dict[str, ScanRecord] = {}
    repeated = 0
    for index, record in enumerate(records):
        key = record.derived_uid or record.own_uid or f"unnamed-{index}"
        repeated += key in kept
        kept.setdefault(key, record)
    if repeated:
        are = counted(repeated, "series is", "series are")
        note(f"{are} given more than once and measured once")
    return list(kept.values())


def shared_ids(
    groups: Sequence[ScanGroup], labels: Sequence[Sequence[Mapping[str, Any]]]
) -> list[str]:
    """A remark if a Patient ID occurs at two sites, unless the site belongs to the identity."""
    sites: dict[str, dict[str, None]] = defaultdict(dict)
    for group, cells in zip(groups, labels, strict=True):
        if group.first.patient_id:
            sites[cells[0]["patient"]][cells[0]["site"]] = None
    shared = [names for names in sites.values() if len(names) > 1]
    if not shared:
        return []
    where = " and ".join(repr(name) for name in list(shared[0])[:2])
    occur = counted(len(shared), "Patient ID occurs", "Patient IDs occur")
    return [
        f"warning: {occur} at two sites (such as {where}); an ID is taken for one patient, and if "
        "they are different people, give --separate-sites"
    ]


def pseudonym(patient: str, salt: bytes) -> str:
    """A patient's pseudonym: the first 16 hexadecimal digits of an HMAC-SHA256 under the salt."""
    return hmac.new(salt, patient.encode(), hashlib.sha256).hexdigest()[:16]


def pseudonym_salt(path: Path, dry_run: bool = False) -> bytes:
    """The salt in a file, which is made where it does not exist.

    Raises:
        UsageError: if the file cannot be read or holds too little.
    """
    if not path.exists():
        salt = secrets.token_hex(32)
        if not dry_run:
            write_atomic(path, salt + "\n", private=True)
        return salt.encode()
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if len(text) < _MIN_SALT_CHARACTERS:
        raise UsageError(
            f"--pseudonyms {path}: no salt, expected {_MIN_SALT_CHARACTERS} characters or more; "
            "name a file that does not exist, and it is made"
        )
    return text.encode()
