"""A segmentation or structure set as a new object beside a derived series: what both kinds share.

Sources: PS3.3 C.12.1 (SOP Common), C.7.3.1 (General Series), C.8.8.5 (Structure Set), C.8.20.2
(Segmentation Image), C.30.3 (Approval).
"""

from __future__ import annotations

import re

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cvsct import __version__
from cvsct.io.dicom.derive import (
    PROCESSED_BY,
    RESEARCH,
    SOFTWARE,
    coded,
    plain_text,
    series_number,
    set_description,
)
from cvsct.io.dicom.header import text, whole
from cvsct.io.dicom.rewrite import copied, file_bytes
from cvsct.io.dicom.successors import Successors
from cvsct.io.dicom.uids import file_meta, uid_of

CARRIED_BY = f"{SOFTWARE} masks"
"""Model name of the equipment that a carried mask adds."""
MAX_LABEL_CHARS = 16
"""Longest value of the VRs SH and CS (PS3.5 section 6.2)."""

_LABEL = "RESEARCH"
_REMOVED = frozenset(
    int(Tag(keyword))
    for keyword in (
        "InstanceCreatorUID",
        "InstanceCreationDate",
        "InstanceCreationTime",
        "SeriesDate",
        "SeriesTime",
        "ReviewDate",
        "ReviewTime",
        "ReviewerName",
        "IconImageSequence",
        "MACParametersSequence",
        "DigitalSignaturesSequence",
        "EncryptedAttributesSequence",
        "DataSetTrailingPadding",
    )
)
_LONGEST_SHORT = 0xFFFF - 1
"""Longest value of a VR with a length of 16 bits (PS3.5 section 7.1.2), of even length."""
_LONG_VRS = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}


def new_object(predecessor: Dataset, successors: Successors, leave_out: frozenset[int]) -> Dataset:
    """A copy of a mask with an identity and a series of its own; references are not touched.

    UIDs follow from the predecessor's and the derived series'. Dates of creation are those of the
    derived images; where these have none, there are none. Reviewers' names and private attributes
    are not copied; text keeps its bytes.

    Args:
        leave_out: further tags to leave out, at any depth.
    """
    ds = copied(predecessor, leave_out=_REMOVED | leave_out, signed=False)
    uid = text(predecessor, "SOPInstanceUID")
    series_uid = text(predecessor, "SeriesInstanceUID") or uid
    ds.SOPInstanceUID = uid_of("carried mask", uid, successors.series_uid)
    ds.SeriesInstanceUID = uid_of("carried masks", series_uid, successors.series_uid)
    ds.SeriesNumber = series_number(whole(predecessor, "SeriesNumber"), successors.series_uid)
    set_description(ds, predecessor, "masks of a derived series")
    for keyword, value in successors.created.items():
        setattr(ds, f"InstanceCreation{keyword}", value)
        setattr(ds, f"Series{keyword}", value)
    return ds


def add_equipment(ds: Dataset, about: str) -> None:
    """Say that this program processed the object, beside the equipment that made it."""
    ours = Dataset()
    ours.Manufacturer = SOFTWARE
    ours.ManufacturerModelName = CARRIED_BY
    ours.SoftwareVersions = __version__
    ours.ContributionDescription = plain_text(f"{RESEARCH}. {about}", 1024)
    ours.PurposeOfReferenceCodeSequence = [coded(PROCESSED_BY, "DCM", "Processing Equipment")]
    ds.ContributingEquipmentSequence = [*ds.get("ContributingEquipmentSequence", []), ours]


def predecessor_reference(predecessor: Dataset) -> Dataset:
    """Item that refers to the object that a new one was made from."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = text(predecessor, "SOPClassUID")
    reference.ReferencedSOPInstanceUID = text(predecessor, "SOPInstanceUID")
    return reference


def research_label(label: str) -> str:
    """Label of a structure set, at most 16 characters, that begins with RESEARCH."""
    words = plain_text(label, 1024)
    new = words if words.upper().startswith(_LABEL) else f"{_LABEL} {words}"
    return new[:MAX_LABEL_CHARS].strip()


def research_code(label: str) -> str:
    """`research_label` as a code string: capitals, digits, spaces and underscores."""
    return re.sub(r"[^A-Z0-9_ ]", "_", research_label(label).upper())


def object_bytes(ds: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """The object as a DICOM file.

    Long contours do not fit into an element of Explicit VR; the file is then Implicit VR Little
    Endian, which every reader has to know (PS3.5 section 10.1).

    Args:
        syntax: that of compressed pixels; else Explicit VR Little Endian.
    """
    meta = file_meta(str(ds.SOPInstanceUID), str(ds.SOPClassUID))
    long = syntax == ExplicitVRLittleEndian and _has_long_values(ds)
    return file_bytes(ds, meta, ImplicitVRLittleEndian if long else syntax)


def _has_long_values(ds: Dataset) -> bool:
    for tag in ds.keys():  # noqa: SIM118 - items would be parsed, keys are not
        element = ds.get_item(tag)
        if element is None:
            continue
        if element.VR == "SQ":
            if any(_has_long_values(item) for item in ds[tag].value):
                return True
        elif element.VR not in _LONG_VRS and _length(element) > _LONGEST_SHORT:
            return True
    return False


def _length(element: object) -> int:
    """Bytes of a value, which where there are several are numbers."""
    value = element.value  # type: ignore[attr-defined]
    if isinstance(element, RawDataElement) or isinstance(value, str | bytes):
        return len(value or b"")
    if isinstance(value, list) or hasattr(value, "__iter__"):
        return sum(len(str(part)) + 1 for part in value)
    return 0
