"""The header of a derived CT image: attributes kept from the source, set anew, or removed.

Sources: PS3.3 C.7.6.1 (General Image), C.7.5.1 (General Equipment), C.12.1 (SOP Common);
PS3.16 for the codes of the DICOM scheme.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Hashable
from dataclasses import dataclass

from pydicom import Dataset, Sequence
from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from cvsct import __version__
from cvsct.io.dicom.header import CT_IMAGE, quiet, text, whole
from cvsct.io.dicom.pixels import Encoding, as_raw
from cvsct.io.dicom.rewrite import copied
from cvsct.io.dicom.uids import uid_of

RESEARCH = "Research use only"
SOFTWARE = "cvsct"
SCHEME = "99CVSCT"
RESAMPLED_BY = f"{SOFTWARE} resample"
"""Model name of this program in series of thicker slices, which are the scanner's all the same."""
DERIVED_CODE = "HARMONISE"
ACQUIRED_BY, PROCESSED_BY = "109101", "109102"
"""Purposes of Contributing Equipment in the scheme DCM: acquisition, processing."""
MAX_DESCRIPTION_CHARS = 64
"""Longest value of the VR LO (PS3.5 section 6.2), which Series Description has."""
MAX_COMMENT_BYTES = 10_240
"""Longest value of the VR LT: 10,240 characters, each of a byte or more."""

_EQUIPMENT = (
    "Manufacturer",
    "InstitutionName",
    "InstitutionAddress",
    "StationName",
    "InstitutionalDepartmentName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "DeviceUID",
    "SoftwareVersions",
    "SpatialResolution",
    "DateOfLastCalibration",
    "TimeOfLastCalibration",
)
"""Attributes of a scanner in Contributing Equipment Sequence (PS3.3 C.12.1)."""
_SCANNER_ONLY = tuple(keyword for keyword in _EQUIPMENT if not keyword.startswith("Institution"))
_REMOVED = frozenset(
    int(Tag(keyword))
    for keyword in (
        "InstanceCreatorUID",
        "SmallestImagePixelValue",
        "LargestImagePixelValue",
        "SmallestPixelValueInSeries",
        "LargestPixelValueInSeries",
        "SourceImageSequence",
        "ConversionSourceAttributesSequence",
        "IconImageSequence",
        "PixelData",
        "MACParametersSequence",
        "DigitalSignaturesSequence",
        "EncryptedAttributesSequence",
        "DataSetTrailingPadding",
    )
)
_CREATION_TIMES = tuple(
    (f"{what}Date", f"{what}Time") for what in ("InstanceCreation", "Series", "Content")
)
"""Dates and times of creation; the source's do not hold for a derived image (all optional)."""
_CONVERSION_SOURCE = "ConversionSourceAttributesSequence"
_LOSSY_SYNTAXES = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
}


@dataclass(frozen=True)
class Derivation:
    """The method, model and settings that a derived series records in its headers.

    Args:
        method: row of the METHODS table.
        target: scanners and kernels that the images were made to look like.
        config_sha256: hash of all settings that shape the pixels, direction included.
        keep_equipment: keep the scanner as Manufacturer, for users who batch by it.
        timestamp: when the images were made, as 14 digits (`20261128093000`); empty leaves it out.
        synthesized_share: share of the noise variance that was generated, as the model predicts it,
            0 to 1; 0 where all noise comes from the source.
    """

    method: str
    target: str
    model_name: str
    model_version: str
    model_sha256: str
    config_sha256: str
    keep_equipment: bool = False
    timestamp: str = ""
    synthesized_share: float = 0.0

    def uid(self, source_uid: str, role: str, content: Hashable = None) -> str:
        """UID of an object derived from one with `source_uid`.

        Args:
            content: distinguishes images whose source shares its UID with others.
        """
        made_by = (self.model_sha256, self.config_sha256, self.target, self.keep_equipment)
        further = tuple(part for part in (self.timestamp, content) if part)
        return uid_of(role, source_uid, *made_by, *further)

    def series_number(self, source: int | None) -> int:
        """Series Number by model, settings and source; it ends in the source's last three digits.

        Example: series 2 becomes 483911002 by one model and 177203002 by another.
        """
        return series_number(source, f"{self.model_sha256} {self.config_sha256} {self.timestamp}")

    @property
    def short_target(self) -> str:
        """The target's kernels, or where none is known its scanners."""
        kernels = dict.fromkeys(re.findall(r"kernel ([^,;]+)", self.target))
        return "/".join(kernels) or self.target

    def __str__(self) -> str:
        synthesis = (
            f"Noise was synthesized: {self.synthesized_share:.0%} of its variance. "
            if self.synthesized_share
            else ""
        )
        return (
            f"{synthesis}{RESEARCH}. {SOFTWARE} {__version__}, method {self.method}: made to look "
            f"like {self.target[:400]}. Model {self.model_name} {self.model_version}, "
            f"sha256 {self.model_sha256}; configuration sha256 {self.config_sha256}."
        )


def source_of(header: Dataset) -> tuple[str, int]:
    """The SOP Instance UID of the file that a slice came from, and its frame, 0 for the whole."""
    converted = header.get(_CONVERSION_SOURCE)
    if not converted:
        return text(header, "SOPInstanceUID"), 0
    return text(converted[0], "ReferencedSOPInstanceUID"), converted[0].ReferencedFrameNumber


def series_number(source: int | None, made_by: str) -> int:
    """Series Number of a derived series; it ends in the source's last three digits."""
    drawn = int.from_bytes(hashlib.sha256(f"{source} {made_by}".encode()).digest()[:8])
    return (100_000 + drawn % 900_000) * 1000 + abs(source or 0) % 1000


def is_derived_here(header: Dataset) -> bool:
    """Whether this program harmonized the image: its derivation code, or the equipment it adds.

    Slices that it only averaged to thicker ones are the scanner's.
    """
    codes = header.get("DerivationCodeSequence") or []
    equipment = header.get("ContributingEquipmentSequence") or []
    return (
        text(header, "Manufacturer") == SOFTWARE
        or any(
            (text(code, "CodeValue"), text(code, "CodingSchemeDesignator"))
            == (DERIVED_CODE, SCHEME)
            for code in codes
        )
        or any(
            text(item, "Manufacturer") == SOFTWARE
            and text(item, "ManufacturerModelName") != RESAMPLED_BY
            for item in equipment
        )
    )


def derived_header(
    source: Dataset, encoding: Encoding, derivation: Derivation, instance_uid: str
) -> Dataset:
    """The header of a derived image: the source's, with the derivation (PS3.3 A.3, C.7.6.1)."""
    header = derived_copy(source, encoding)
    header.SOPInstanceUID = instance_uid
    header.SeriesInstanceUID = derivation.uid(text(source, "SeriesInstanceUID"), "series")
    header.SeriesNumber = derivation.series_number(whole(source, "SeriesNumber"))
    set_description(header, source, f"{derivation.method} to {derivation.short_target}")
    _set_time(header, derivation)
    code = coded(DERIVED_CODE, SCHEME, "Scanner harmonisation by a learned model")
    set_derivation(header, source, str(derivation), code)
    _add_scheme(header)
    header.SourceImageSequence = Sequence([source_image(source, in_place=True)])
    if derivation.synthesized_share:
        header.SyntheticData = "YES"  # PS3.3 C.12.1.1: some of the content is made artificially
    _set_equipment(header, source, derivation)
    return header


def derived_copy(source: Dataset, encoding: Encoding) -> Dataset:
    """What any derived image keeps of its source's header, with pixels as they are now stored.

    Dates and times of creation are left out: the source's do not hold.
    """
    header = copied(source, leave_out=_REMOVED, signed=encoding.signed)
    header.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    for keyword in itertools.chain(*_CREATION_TIMES):
        if keyword in header:
            del header[keyword]
    _correct_pixel_attributes(header, source, encoding)
    return header


def set_description(header: Dataset, source: Dataset, made: str) -> None:
    """Set Series Description: what was made, then the source's, not cut within a word.

    The source's words keep its character set where that can be written back.
    """
    ours = _whole_words(plain_text(f"{RESEARCH}: {made}", 1024), MAX_DESCRIPTION_CHARS)
    theirs = _whole_words(text(source, "SeriesDescription"), MAX_DESCRIPTION_CHARS - len(ours) - 2)
    value = f"{ours}; {theirs}" if theirs else ours
    encoded = plain_text(value, MAX_DESCRIPTION_CHARS).encode()
    if not value.isascii() and value.isprintable() and "\\" not in value:
        with quiet():
            try:
                encodings = convert_encodings(text(source, "SpecificCharacterSet").split("\\"))
                kept = encode_string(value, encodings)
                if decode_bytes(kept, encodings, set()) == value:
                    encoded = kept
            except Exception:  # a wrong character set: plain text is right in any
                pass
    encoded += b" " * (len(encoded) % 2)
    tag = Tag("SeriesDescription")
    header[tag] = RawDataElement(tag, "LO", len(encoded), encoded, 0, False, True)


def _whole_words(value: str, length: int) -> str:
    """As many whole words as fit, with dots if some are left out; empty if none fits."""
    if len(value) <= length:
        return value
    kept = value[: max(length - 3, 0) + 1].rpartition(" ")[0].rstrip(" ,;")
    return f"{kept}..." if kept else ""


def _set_time(header: Dataset, derivation: Derivation) -> None:
    """Set the dates and times of creation to the derivation's timestamp, if it has one."""
    for date, time in _CREATION_TIMES if derivation.timestamp else ():
        setattr(header, date, derivation.timestamp[:8])
        setattr(header, time, derivation.timestamp[8:])


def prepend_remark(header: Dataset, remark: str) -> None:
    """Put a remark before the source's Image Comments (0020,4000), which viewers show.

    The source's comments keep their bytes: plain ASCII before them is right in any character set.
    """
    element = header.get_item("ImageComments")
    before = element.value if element is not None else b""
    before = before if isinstance(before, bytes) else str(before or "").encode("ascii", "replace")
    parts = [plain_text(remark, 1024).encode(), before.strip()]
    value = b"\r\n".join(part for part in parts if part)[:MAX_COMMENT_BYTES]
    value += b" " * (len(value) % 2)
    tag = Tag("ImageComments")
    header[tag] = RawDataElement(tag, "LT", len(value), value, 0, False, True)


def set_derivation(header: Dataset, source: Dataset, about: str, code: Dataset) -> None:
    """Put a derivation before the source's description of its own, and its code after its codes."""
    before = text(source, "DerivationDescription")
    header.DerivationDescription = plain_text(
        about + (f" Source: {before}" if before else ""), 1024
    )
    header.DerivationCodeSequence = [*header.get("DerivationCodeSequence", []), code]


def _add_scheme(header: Dataset) -> None:
    """Say whose the coding scheme of our own codes is."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeName = "cvsct private codes"
    scheme.CodingSchemeResponsibleOrganization = "cvsct project"
    known = header.get("CodingSchemeIdentificationSequence", [])
    others = [item for item in known if item.get("CodingSchemeDesignator") != SCHEME]
    header.CodingSchemeIdentificationSequence = [*others, scheme]


def source_image(source: Dataset, *, in_place: bool) -> Dataset:
    """Item of Source Image Sequence for an image that another was computed from.

    Args:
        in_place: whether the other's pixels lie where this one's do.
    """
    image = Dataset()
    image.ReferencedSOPClassUID = CT_IMAGE
    image.ReferencedSOPInstanceUID, frame = source_of(source)
    if frame:
        image.ReferencedSOPClassUID = source[_CONVERSION_SOURCE].value[0].ReferencedSOPClassUID
        image.ReferencedFrameNumber = frame
    image.SpatialLocationsPreserved = "YES" if in_place else "NO"
    image.PurposeOfReferenceCodeSequence = [
        coded("121322", "DCM", "Source image for image processing operation")
    ]
    return image


def add_equipment(header: Dataset, source: Dataset, model: str, about: str) -> None:
    """Add contributing equipment: the scanner acquired (109101), this program processed (109102).

    Args:
        model: name of the part of this program.
        about: what it did.
    """
    scanner = Dataset()
    for keyword in _EQUIPMENT:
        element = header.get_item(keyword)
        if element is not None:
            scanner[keyword] = element
    if not text(source, "Manufacturer"):
        scanner.Manufacturer = "unknown"
    scanner.PurposeOfReferenceCodeSequence = [coded(ACQUIRED_BY, "DCM", "Acquisition Equipment")]
    ours = Dataset()
    ours.Manufacturer = SOFTWARE
    ours.ManufacturerModelName = model
    ours.SoftwareVersions = __version__
    ours.ContributionDescription = plain_text(about, 1024)
    ours.PurposeOfReferenceCodeSequence = [coded(PROCESSED_BY, "DCM", "Processing Equipment")]
    header.ContributingEquipmentSequence = [
        *header.get("ContributingEquipmentSequence", []),
        scanner,
        ours,
    ]


def _set_equipment(header: Dataset, source: Dataset, derivation: Derivation) -> None:
    """Add contributing equipment; this program is the maker, unless the scanner is to be kept."""
    model = plain_text(f"{SOFTWARE} {derivation.method}", 64)
    add_equipment(header, source, model, str(derivation))
    if derivation.keep_equipment:
        return
    for keyword in _SCANNER_ONLY:
        if keyword in header:
            del header[keyword]
    header.Manufacturer = SOFTWARE
    header.ManufacturerModelName = model
    header.SoftwareVersions = __version__


def _correct_pixel_attributes(header: Dataset, source: Dataset, encoding: Encoding) -> None:
    """Correct the attributes that describe pixels, which are now plain 16-bit values."""
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = whole(source, keyword)
        if keyword in header:
            del header[keyword]
        if value is not None and encoding.padding is not None:
            vr = "SS" if encoding.signed else "US"
            header.add_new(keyword, vr, as_raw(value, encoding.signed))
    for group in range(0x6000, 0x6020, 2):
        if (group, 0x0010) in header and (group, 0x3000) not in header:
            for tag in [tag for tag in header.keys() if tag.group == group]:  # noqa: SIM118
                del header[tag]
    set_lossy(header, source)


def set_lossy(header: Dataset, source: Dataset) -> None:
    """Say that an image was once compressed with loss, if a source of it was."""
    if text(header, "LossyImageCompression") == "01":
        return
    meta = getattr(source, "file_meta", Dataset())
    method = _LOSSY_SYNTAXES.get(text(meta, "TransferSyntaxUID"))
    if method:
        header.LossyImageCompressionMethod = method
    if method or text(source, "LossyImageCompression") == "01":
        header.LossyImageCompression = "01"


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """Item of a code sequence."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def plain_text(value: str, length: int) -> str:
    r"""Text that any character set and the VRs LO and ST can hold: ASCII, one line, no `\`."""
    ascii_only = value.encode("ascii", "replace").decode().replace("\\", "/")
    return "".join(char if char.isprintable() else " " for char in ascii_only)[:length].strip()
