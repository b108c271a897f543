"""The header of a derived CT image: what is kept of the source's, told anew, or removed.

Sources: PS3.3 C.7.6.1 (General Image), C.7.5.1 (General Equipment), C.12.1 (SOP Common);
PS3.16 for the codes of the DICOM scheme.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom import Dataset, Sequence
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from cvsct import __version__
from cvsct.io.header import CT_IMAGE, text, whole
from cvsct.io.identity import uid_of
from cvsct.io.pixels import Encoding, as_raw
from cvsct.io.rewrite import copied

RESEARCH = "Research use only"
SOFTWARE = "cvsct"
SCHEME = "99CVSCT"
SERIES_NUMBER_OFFSET = 9000
MOST_COMMENT_BYTES = 10_240
"""Of the VR LT, in characters; no character has less than a byte."""

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
"""What Contributing Equipment Sequence says about a scanner (PS3.3 C.12.1)."""
_SCANNER_ONLY = tuple(keyword for keyword in _EQUIPMENT if not keyword.startswith("Institution"))
_REMOVED = frozenset(
    int(Tag(keyword))
    for keyword in (
        "InstanceCreationDate",
        "InstanceCreationTime",
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
_CONVERTED = "ConversionSourceAttributesSequence"
_LOSSY_SYNTAXES = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
}


@dataclass(frozen=True)
class Derivation:
    """What was done to a series, for the header of its result.

    Args:
        method: row of the METHODS table.
        target: what the images were made to look like, by technical attributes only.
        config_sha256: hash of all settings that shape the pixels, direction included.
        keep_equipment: keep the scanner as Manufacturer, for users who batch by it.
    """

    method: str
    target: str
    model_name: str
    model_version: str
    model_sha256: str
    config_sha256: str
    keep_equipment: bool = False

    def uid(self, source_uid: str, role: str) -> str:
        """The UID of what is derived from `source_uid`."""
        made_by = (self.model_sha256, self.config_sha256, self.target, self.keep_equipment)
        return uid_of(role, source_uid, *made_by)

    def __str__(self) -> str:
        return (
            f"{RESEARCH}. {SOFTWARE} {__version__}, method {self.method}: made to look like "
            f"{self.target[:400]}. Model {self.model_name} {self.model_version}, "
            f"sha256 {self.model_sha256}; configuration sha256 {self.config_sha256}."
        )


def source_of(header: Dataset) -> tuple[str, int]:
    """The SOP Instance UID of the file that a slice came from, and its frame, 0 for the whole."""
    converted = header.get(_CONVERTED)
    if not converted:
        return text(header, "SOPInstanceUID"), 0
    return text(converted[0], "ReferencedSOPInstanceUID"), converted[0].ReferencedFrameNumber


def derived_header(source: Dataset, encoding: Encoding, derivation: Derivation) -> Dataset:
    """The source's header with the derivation told, attribute by attribute (PS3.3 A.3, C.7.6.1)."""
    header = copied(source, leave_out=_REMOVED, signed=encoding.signed)
    header.SOPInstanceUID = derivation.uid(text(source, "SOPInstanceUID"), "instance")
    header.SeriesInstanceUID = derivation.uid(text(source, "SeriesInstanceUID"), "series")
    header.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    header.SeriesDescription = _plain(f"{RESEARCH}: {derivation.method} to {derivation.target}", 64)
    number = whole(source, "SeriesNumber")
    if number is not None:
        header.SeriesNumber = number + SERIES_NUMBER_OFFSET if 0 <= number < 10**6 else number
    _tell_derivation(header, source, derivation)
    _tell_equipment(header, source, derivation)
    _correct_pixel_attributes(header, source, encoding)
    return header


def tell_remark(header: Dataset, remark: str) -> None:
    """Begin Image Comments (0020,4000), which viewers show, with a remark; the source's follow.

    Those are kept as the bytes they are: plain ASCII before them is right in any character set.
    """
    element = header.get_item("ImageComments")
    before = element.value if element is not None else b""
    before = before if isinstance(before, bytes) else str(before or "").encode("ascii", "replace")
    parts = [_plain(remark, 1024).encode(), before.strip()]
    value = b"\r\n".join(part for part in parts if part)[:MOST_COMMENT_BYTES]
    value += b" " * (len(value) % 2)
    tag = Tag("ImageComments")
    header[tag] = RawDataElement(tag, "LT", len(value), value, 0, False, True)


def _tell_derivation(header: Dataset, source: Dataset, derivation: Derivation) -> None:
    before = text(source, "DerivationDescription")
    about = str(derivation) + (f" Source: {before}" if before else "")
    header.DerivationDescription = _plain(about, 1024)
    code = _code("HARMONISE", SCHEME, "Scanner harmonisation by a learned model")
    header.DerivationCodeSequence = [*header.get("DerivationCodeSequence", []), code]
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeName = "cvsct private codes"
    scheme.CodingSchemeResponsibleOrganization = "cvsct project"
    known = header.get("CodingSchemeIdentificationSequence", [])
    others = [item for item in known if item.get("CodingSchemeDesignator") != SCHEME]
    header.CodingSchemeIdentificationSequence = [*others, scheme]
    image = Dataset()
    image.ReferencedSOPClassUID = CT_IMAGE
    image.ReferencedSOPInstanceUID, frame = source_of(source)
    if frame:
        image.ReferencedSOPClassUID = source[_CONVERTED].value[0].ReferencedSOPClassUID
        image.ReferencedFrameNumber = frame
    image.SpatialLocationsPreserved = "YES"
    image.PurposeOfReferenceCodeSequence = [
        _code("121322", "DCM", "Source image for image processing operation")
    ]
    header.SourceImageSequence = Sequence([image])


def _tell_equipment(header: Dataset, source: Dataset, derivation: Derivation) -> None:
    """Who made the images: the scanner acquired (109101), this program processed (109102)."""
    scanner = Dataset()
    for keyword in _EQUIPMENT:
        element = header.get_item(keyword)
        if element is not None:
            scanner[keyword] = element
    if not text(source, "Manufacturer"):
        scanner.Manufacturer = "unknown"
    scanner.PurposeOfReferenceCodeSequence = [_code("109101", "DCM", "Acquisition Equipment")]
    ours = Dataset()
    ours.Manufacturer = SOFTWARE
    ours.ManufacturerModelName = _plain(f"{SOFTWARE} {derivation.method}", 64)
    ours.SoftwareVersions = __version__
    ours.ContributionDescription = _plain(str(derivation), 1024)
    ours.PurposeOfReferenceCodeSequence = [_code("109102", "DCM", "Processing Equipment")]
    header.ContributingEquipmentSequence = [
        *header.get("ContributingEquipmentSequence", []),
        scanner,
        ours,
    ]
    if derivation.keep_equipment:
        return
    for keyword in _SCANNER_ONLY:
        if keyword in header:
            del header[keyword]
    header.Manufacturer = SOFTWARE
    header.ManufacturerModelName = ours.ManufacturerModelName
    header.SoftwareVersions = __version__


def _correct_pixel_attributes(header: Dataset, source: Dataset, encoding: Encoding) -> None:
    """Attributes that must agree with pixels that are now plain 16-bit values."""
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
    meta = getattr(source, "file_meta", Dataset())
    method = _LOSSY_SYNTAXES.get(text(meta, "TransferSyntaxUID"))
    if method and text(source, "LossyImageCompression") != "01":
        header.LossyImageCompression = "01"
        header.LossyImageCompressionMethod = method


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _plain(value: str, length: int) -> str:
    r"""Text that any character set and the VRs LO and ST can hold: ASCII, one line, no `\`."""
    ascii_only = value.encode("ascii", "replace").decode().replace("\\", "/")
    return "".join(char if char.isprintable() else " " for char in ascii_only)[:length].strip()
