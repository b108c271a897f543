"""Stored pixel values to CT numbers: decoding, rescale, padding (DICOM PS3.3 C.7.6.3, C.11.1).

A CT number is the stored value times Rescale Slope plus Rescale Intercept, whatever the
photometric interpretation: MONOCHROME1 only asks a display to show low values white, after the
window (PS3.3 C.7.6.3.1.2), so nothing is inverted here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from pydicom import Dataset, FileDataset
from scipy import ndimage

from cvsct.core.errors import SeriesError
from cvsct.core.masks import BODY_VOXELS
from cvsct.core.volume import AIR_FLOOR_HU, PADDING_HU
from cvsct.io.dicom.codec_process import decode, frames_of, syntax_of
from cvsct.io.dicom.header import number, quiet, text, whole
from cvsct.io.dicom.units import not_hu

SOLID_PX = 5
"""Smallest side in pixels of a square of padding, if its value could also be measured air."""
MAX_SIDE = 4096
MAX_STORED_HU = 1e6
"""Largest HU that a slice may store; extended CT numbers of 16 bits reach 3e5 at a slope of 10."""
FLATTEST_SLOPE = 1e-6


@dataclass(frozen=True)
class Encoding:
    """How a slice stores its values (PS3.3 C.7.6.3 and C.11.1).

    Args:
        signed: Pixel Representation 1.
        slope, intercept: stored value to HU.
        padding: lowest and highest stored value declared as padding, both included.
    """

    rows: int
    columns: int
    bits: int
    signed: bool
    slope: float
    intercept: float
    padding: tuple[int, int] | None

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest value that Bits Stored can hold."""
        if self.signed:
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1


@dataclass(frozen=True)
class Slice:
    """One decoded slice: CT numbers, where it is padded, and the values stored there."""

    hu: Float[np.ndarray, "rows columns"]
    padding: Bool[np.ndarray, "rows columns"]
    padding_stored: Int[np.ndarray, " voxels"]


def encoding_of(name: str, dataset: Dataset) -> Encoding:
    """Check what the header says about the pixels, before any is decoded.

    Raises:
        SeriesError: if the slice is not single-frame, 12 to 16 bit grayscale with a rescale to HU.
    """
    reason = not_hu(dataset)
    if reason:
        raise SeriesError(f"{name}: {reason}; name a series in Hounsfield units")
    frames = whole(dataset, "NumberOfFrames")
    if frames is not None and frames != 1:
        raise SeriesError(
            f"{name}: multi-frame image of {frames} frames; export it as one file a slice"
        )
    samples = whole(dataset, "SamplesPerPixel")
    photometric = text(dataset, "PhotometricInterpretation")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise SeriesError(
            f"{name}: a color image or screen copy ({samples or 'unknown'} samples a pixel), "
            "expected one grayscale sample; name the original CT series"
        )
    allocated, bits = whole(dataset, "BitsAllocated"), whole(dataset, "BitsStored")
    if allocated != 16 or bits is None or not 12 <= bits <= 16:
        raise SeriesError(
            f"{name}: {bits} of {allocated} bits stored, CT has 12 to 16 of 16; "
            "name the original CT series, not an 8-bit copy"
        )
    if whole(dataset, "HighBit") not in (bits - 1, None):
        raise SeriesError(f"{name}: High Bit is not Bits Stored - 1; re-export the series")
    representation = whole(dataset, "PixelRepresentation")
    if representation not in (0, 1):
        raise SeriesError(f"{name}: no usable PixelRepresentation; re-export the series")
    rows, columns = whole(dataset, "Rows") or 0, whole(dataset, "Columns") or 0
    if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE):
        raise SeriesError(
            f"{name}: declares {rows} x {columns} voxels, expected 1 to {MAX_SIDE} a side; "
            "the header is damaged or this is no CT slice"
        )
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if (
        slope is None
        or intercept is None
        or abs(slope) < FLATTEST_SLOPE
        or abs(slope) * 2**bits + abs(intercept) > MAX_STORED_HU
    ):
        raise SeriesError(
            f"{name}: no usable Rescale Slope and Intercept, so no HU; re-export the series"
        )
    signed = representation == 1
    return Encoding(rows, columns, bits, signed, slope, intercept, _padding(dataset, signed))


def read_pixels(name: str, dataset: FileDataset, encoding: Encoding) -> Slice:
    """Decode one slice and turn its stored values into HU.

    Raises:
        SeriesError: if the pixels are absent, cut short, undecodable or unlike the header.
    """
    return FrameReader(name, dataset, encoding.rows, encoding.columns).read(0, dataset, encoding)


class FrameReader:
    """The frames of one file's pixel data, each decoded when it is asked for.

    Args:
        frames: how many the file must hold.

    Raises:
        SeriesError: if the pixels are absent, cut short or compressed in a way not read here.
    """

    def __init__(
        self, name: str, dataset: FileDataset, rows: int, columns: int, frames: int = 1
    ) -> None:
        self._name, self._dataset, self._frames = name, dataset, frames
        pixels = _pixel_bytes(dataset)
        if not pixels:
            raise SeriesError(
                f"{name}: no pixel data (an index object, or a file cut short); copy the file again"
            )
        self._syntax = syntax_of(dataset)
        if not self._syntax.is_transfer_syntax or self._syntax.is_private:
            raise SeriesError(
                f"{name}: no transfer syntax that this program knows; convert the file to "
                "Explicit VR Little Endian"
            )
        self._compressed = (
            frames_of(name, dataset, frames) if self._syntax.is_encapsulated else None
        )
        expected = 2 * rows * columns * frames
        if self._compressed is None and len(pixels) < expected:
            raise SeriesError(
                f"{name}: pixel data cut short at {len(pixels)} of {expected} bytes; "
                "copy the file again"
            )

    def read(self, index: int, header: Dataset, encoding: Encoding) -> Slice:
        """One frame in HU.

        Args:
            header: what tells of overlays in its unused bits.

        Raises:
            SeriesError: if the frame cannot be decoded or is unlike the header.
        """
        if self._compressed is None:
            raw = self._native(index, encoding)
        else:
            about = {
                "rows": encoding.rows,
                "columns": encoding.columns,
                "samples_per_pixel": 1,
                "photometric_interpretation": text(self._dataset, "PhotometricInterpretation"),
                "bits_allocated": 16,
                "bits_stored": encoding.bits,
                "pixel_representation": int(encoding.signed),
                "number_of_frames": 1,
                "pixel_keyword": "PixelData",
            }
            raw = decode(self._name, self._syntax, self._compressed[index], about)
        return _slice(self._name, header, raw.astype(np.int32), encoding)

    def _native(self, index: int, encoding: Encoding) -> np.ndarray:
        length = 2 * encoding.rows * encoding.columns
        pixels = memoryview(_pixel_bytes(self._dataset))[index * length : (index + 1) * length]
        order = "<" if self._syntax.is_little_endian else ">"
        values = np.frombuffer(pixels, f"{order}{'i' if encoding.signed else 'u'}2")
        return values.reshape(encoding.rows, encoding.columns)


def _slice(
    name: str, dataset: Dataset, raw: Int[np.ndarray, "rows columns"], encoding: Encoding
) -> Slice:
    declared = np.zeros(raw.shape, dtype=bool)
    if encoding.padding is not None:
        declared = (raw >= encoding.padding[0]) & (raw <= encoding.padding[1])
        _refuse_tissue_padding(name, raw[declared], encoding)
        highest_hu = encoding.padding[1] * encoding.slope + encoding.intercept
        if PADDING_HU < highest_hu <= BODY_VOXELS.low_hu:
            # Declared as the lowest CT number, -1024 HU. A sharp kernel clips the noise of air and
            # lung to it, pixel by pixel; padding comes in areas.
            declared = ndimage.binary_opening(declared, np.ones((SOLID_PX, SOLID_PX)))
    stored = np.where(declared, raw, _low_bits(raw, encoding))
    unexplained = (stored != raw) & ((raw & 0xFFFF) >> encoding.bits != 0)
    if unexplained.any() and not _has_overlay_bits(dataset):
        raise SeriesError(
            f"{name}: values need more than the {encoding.bits} bits its header declares; "
            "re-export the series"
        )
    hu = stored * encoding.slope + encoding.intercept
    padding = declared | (hu <= PADDING_HU)
    hu[padding] = AIR_FLOOR_HU
    values = raw[padding]
    if len(values) and (values == values[0]).all():
        values = values[:1]
    return Slice(hu.astype(np.float32), padding, values)


def _pixel_bytes(dataset: FileDataset) -> bytes:
    with quiet():
        try:
            value = dataset.get("PixelData")
        except Exception:  # a damaged value is an absent value
            return b""
    return value if isinstance(value, bytes) else b""


def _padding(dataset: Dataset, signed: bool) -> tuple[int, int] | None:
    """Declared padding as raw values; some confuse signed and unsigned (PS3.3 C.7.5.1.1.2)."""
    value = whole(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = whole(dataset, "PixelPaddingRangeLimit")
    ends = sorted(as_raw(end, signed) for end in (value, value if limit is None else limit))
    return ends[0], ends[1]


def as_raw(value: int, signed: bool) -> int:
    """The 16-bit pattern of `value` read as the pixels are: -2000 is 63536 where unsigned."""
    pattern = value % 2**16
    return pattern - 2**16 if signed and pattern >= 2**15 else pattern


def _refuse_tissue_padding(name: str, raw: Int[np.ndarray, " voxels"], encoding: Encoding) -> None:
    hu = raw * encoding.slope + encoding.intercept
    among_tissue = (hu > BODY_VOXELS.low_hu) & (hu <= BODY_VOXELS.high_hu)
    if among_tissue.any():
        raise SeriesError(
            f"{name}: Pixel Padding Value means {hu[among_tissue][0]:g} HU, a value tissue has; "
            "correct or remove that attribute"
        )


def _low_bits(raw: Int[np.ndarray, "rows columns"], encoding: Encoding) -> np.ndarray:
    """The value in Bits Stored; the bits above may carry an overlay (PS3.5 section 8.1.1)."""
    low = raw & (2**encoding.bits - 1)
    value: np.ndarray = np.where(low > encoding.limits[1], low - 2**encoding.bits, low)
    return value


def _has_overlay_bits(dataset: Dataset) -> bool:
    """Whether an overlay is stored in the unused bits: with a bit position and no own data."""
    groups = range(0x6000, 0x6020, 2)
    return any((g, 0x0102) in dataset and (g, 0x3000) not in dataset for g in groups)
