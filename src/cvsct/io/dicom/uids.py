"""Identifiers that follow from what they name, and the file meta group that says who wrote a file.

pydicom's `generate_uid(prefix=None, entropy_srcs=...)` ignores the entropy, so UIDs are made here.
"""

from __future__ import annotations

import uuid
from typing import Any

from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from cvsct import __version__
from cvsct.core.files import canonical_json
from cvsct.io.dicom.header import CT_IMAGE

_NAMESPACE = uuid.UUID("5d2c1a3e-8f0b-5f53-9a35-3c1d5b7e9a41")
_IMPLEMENTATION_UID = f"2.25.{uuid.uuid5(_NAMESPACE, 'implementation').int}"


def uid_of(*about: Any) -> str:
    """The same UID for the same description: 2.25 and a name-based UUID (PS3.5 section B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, canonical_json(about)).int}"


def file_meta(instance_uid: str, class_uid: str = CT_IMAGE) -> FileMetaDataset:
    """The file meta group of an object this program wrote (PS3.10 section 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(class_uid)
    meta.MediaStorageSOPInstanceUID = UID(instance_uid)
    meta.ImplementationClassUID = UID(_IMPLEMENTATION_UID)
    meta.ImplementationVersionName = f"CVSCT_{__version__}"[:16]
    return meta
