"""A DICOM header copied attribute by attribute, ready to be written as Explicit VR Little Endian.

Text and numbers are copied as the bytes they are wherever the bytes need not change, so that a
wrong Specific Character Set or an odd value in the source is neither mended nor made worse.
"""

from __future__ import annotations

from collections.abc import Container
from io import BytesIO

from pydicom import DataElement, Dataset, Sequence, dcmwrite
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian

_BINARY_VRS = {"AT", "FD", "FL", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "SV", "UL", "US", "UV"}
"""Value representations whose bytes depend on the byte order (PS3.5 section 6.2)."""


def copied(source: Dataset, *, leave_out: Container[int], signed: bool) -> Dataset:
    """A deep copy without private attributes, group lengths and the tags in `leave_out`.

    Args:
        source: as read from a file, or made in memory.
        leave_out: tags to drop, at any depth.
        signed: how the pixels are stored; decides between the VRs SS and US in implicit files.
    """
    copy = Dataset()
    for tag in source.keys():  # noqa: SIM118 - items would be parsed, keys are not
        if tag.is_private or tag.element == 0 or tag in leave_out:
            continue
        element = source.get_item(tag)
        if element is None:
            continue
        vr = _vr(tag, element.VR, signed)
        if isinstance(element, RawDataElement) and vr != "SQ":
            copy[tag] = _copied_raw(source, element, vr)
            continue
        parsed = source[tag]
        if parsed.VR == "SQ":
            items = [copied(item, leave_out=leave_out, signed=signed) for item in parsed.value]
            copy[tag] = DataElement(tag, "SQ", Sequence(items))
        else:
            copy[tag] = DataElement(tag, vr, parsed.value)
    return copy


def decimal(value: float) -> str:
    """A decimal string: at most 16 characters (PS3.5 section 6.2), and no negative zero."""
    return f"{value + 0.0:.9g}"


def file_bytes(
    dataset: Dataset, meta: FileMetaDataset, syntax: UID = ExplicitVRLittleEndian
) -> bytes:
    """The data set as a DICOM file (PS3.10), in Explicit VR Little Endian if nothing else is said.

    Args:
        syntax: a little-endian one, to which pixels that are compressed belong.
    """
    meta.TransferSyntaxUID = syntax
    dataset.file_meta = meta
    _keep_raw(dataset)
    buffer = BytesIO()
    dcmwrite(
        buffer,
        dataset,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=True,
        enforce_file_format=True,
    )
    return buffer.getvalue()


def _copied_raw(source: Dataset, element: RawDataElement, vr: str) -> RawDataElement | DataElement:
    swapped = not element.is_little_endian and vr in _BINARY_VRS
    if swapped:
        parsed = source[element.tag]
        return DataElement(element.tag, vr, parsed.value)
    value = element.value or b""
    return element._replace(
        VR=vr, value=value, length=len(value), is_implicit_VR=False, is_little_endian=True
    )


def _vr(tag: BaseTag, vr: str | None, signed: bool) -> str:
    """One definite VR; the dictionary leaves some open (PS3.5 section A.1, PS3.6)."""
    if vr in (None, "UN") and dictionary_has_tag(tag):
        vr = dictionary_VR(tag)
    if vr is None or vr == "NONE":
        return "UN"
    if vr == "US or SS":
        return "SS" if signed else "US"
    return "OW" if " or " in vr else vr


def _keep_raw(dataset: Dataset) -> None:
    """Tell pydicom that the raw elements are in the target's encoding already."""
    dataset.set_original_encoding(False, True, dataset._character_set)
    for tag in dataset.keys():  # noqa: SIM118
        element = dataset.get_item(tag)
        if isinstance(element, DataElement) and element.VR == "SQ":
            for item in element.value:
                _keep_raw(item)
