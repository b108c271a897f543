"""Mask files matched with the scans that they were drawn on, from headers alone.

DICOM masks name their series and their frame of reference. NIfTI masks name neither: they are
matched by a pattern of their names, by a name that begins with the scan's, or by their grid.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import Float
from pydicom import Dataset

from cvsct.core.errors import CvsctError, UsageError
from cvsct.core.progress import Note, log_note
from cvsct.core.volume import CTVolume
from cvsct.io.dicom.header import is_dicom, label, read_dataset, text
from cvsct.io.dicom.references import items
from cvsct.io.dicom.segmentation import SEGMENTATIONS
from cvsct.io.dicom.structure_set import RTSTRUCT
from cvsct.io.left_out import Tally
from cvsct.io.nifti.header import is_nifti, read_nifti_header, sizes_of
from cvsct.io.nifti.read import TO_LPS
from cvsct.io.scan_record import ScanGroup, ScanRecord
from cvsct.io.series import open_headers
from cvsct.io.walk import walk

FIELDS = ("patient", "study", "series", "folder", "name", "site")
"""Names that a pattern of mask names may hold in braces."""

_SEPARATORS = "_-. "
_MAX_SHIFT_VOXELS = 0.1


@dataclass(frozen=True)
class MaskFile:
    """One file of masks and what its header refers to.

    Args:
        path: the file.
        relative: its path relative to the folder it was found under.
        series_uids: series that it names.
        frames: frames of reference that it names.
        patient_id: its Patient ID; empty in NIfTI.
    """

    path: Path
    relative: PurePath = field(repr=False)
    series_uids: frozenset[str] = frozenset()
    frames: frozenset[str] = frozenset()
    patient_id: str = field(default="", repr=False)

    @property
    def stem(self) -> str:
        """Name of the file without its suffix."""
        name = self.path.name
        return name.removesuffix(".gz").removesuffix(".nii").removesuffix(".dcm")

    @property
    def stamp(self) -> str:
        """Text that changes when the file changes."""
        stat = self.path.stat()
        return f"{self.path.name} {stat.st_size} {stat.st_mtime_ns}"


def find_mask_files(paths: Sequence[Path], note: Note = log_note) -> list[MaskFile]:
    """The mask files among files and under folders: NIfTI, DICOM SEG and RTSTRUCT.

    Args:
        note: called with the number of other files, which are left out.

    Raises:
        UsageError: if there is no mask file at all.
    """
    found: list[MaskFile] = []
    others = 0
    for root in paths:
        for path in walk(root, Tally()):
            relative = path.relative_to(root) if root.is_dir() else PurePath(path.name)
            if is_nifti(path):
                found.append(MaskFile(path, relative))
                continue
            mask = _dicom_mask(path, relative) if is_dicom(path) else None
            if mask is None:
                others += 1
            else:
                found.append(mask)
    if not found:
        raise UsageError(
            f"{', '.join(map(str, paths))}: no masks here ({others} other files); give NIfTI "
            "(.nii, .nii.gz), DICOM SEG or RTSTRUCT"
        )
    if others:
        note(f"{others} files among the masks are none (NIfTI, DICOM SEG, RTSTRUCT) and not read")
    return found


def match_masks(
    masks: Sequence[MaskFile],
    groups: Sequence[ScanGroup],
    sites: Mapping[str, str],
    pattern: str = "",
    note: Note = log_note,
) -> list[tuple[MaskFile, ...]]:
    """The masks of each group of scans; what was drawn on a source holds for what came from it.

    A DICOM mask belongs to the series that it names. A NIfTI mask belongs to the scans whose
    pattern its path matches; without a pattern to the scan whose name (of the file or folder, the
    Patient ID, or the series UID) its own name begins with. A series that has no mask so takes the
    DICOM masks of the same patient and frame of reference, or the NIfTI mask that fits no other
    scan's grid.

    Args:
        sites: site of each group by the `own_uid` of its first record.
        pattern: pattern of mask paths with `FIELDS` in braces, such as `{patient}_*.nii.gz`.
        note: called with each mask that fits no scan.

    Raises:
        UsageError: if the pattern has another field in braces.
    """
    chosen: list[list[MaskFile]] = [[] for _ in groups]
    by_series = {record.series_uid: i for i, group in enumerate(groups) for record in group.records}
    for mask in masks:
        for i in sorted({by_series[uid] for uid in mask.series_uids if uid in by_series}):
            chosen[i].append(mask)
    _match_names(_unused(masks, chosen, nifti=True), groups, sites, pattern, chosen)
    by_frame: dict[str, list[MaskFile]] = {}
    for mask in masks:
        for frame in mask.frames:
            by_frame.setdefault(frame, []).append(mask)
    for i in [i for i, group_masks in enumerate(chosen) if not group_masks]:
        record = groups[i].first
        of_frame = by_frame.get(record.frame_of_reference, [])
        chosen[i] += [m for m in of_frame if m.patient_id in ("", record.patient_id)]
    _match_names(_unused(masks, chosen, nifti=False), groups, sites, pattern, chosen)
    rest = _unused(masks, chosen, nifti=False)
    if not pattern:
        _match_grids(_unused(masks, chosen, nifti=True), groups, chosen, note)
    else:
        rest += _unused(masks, chosen, nifti=True)
    for mask in rest:
        note(
            f"{label(mask.path)}: belongs to none of the scans by its references or name; not used"
        )
    return [tuple(group_masks) for group_masks in chosen]


def _unused(
    masks: Sequence[MaskFile], chosen: Sequence[Sequence[MaskFile]], nifti: bool
) -> list[MaskFile]:
    """The NIfTI or the DICOM masks that no group has yet."""
    used = {mask.path for group_masks in chosen for mask in group_masks}
    return [m for m in masks if m.path not in used and is_nifti(m.path) == nifti]


def _dicom_mask(path: Path, relative: PurePath) -> MaskFile | None:
    """A SEG or RTSTRUCT from its header; None for any other file."""
    try:
        header = read_dataset(path, pixels=False)
    except CvsctError:
        return None
    if text(header, "SOPClassUID") not in (*SEGMENTATIONS, RTSTRUCT):
        return None
    frames = {text(header, "FrameOfReferenceUID")}
    series = {text(item, "SeriesInstanceUID") for item in items(header, "ReferencedSeriesSequence")}
    for frame in items(header, "ReferencedFrameOfReferenceSequence"):
        frames.add(text(frame, "FrameOfReferenceUID"))
        series |= set(_series_of_frame(frame))
    for roi in items(header, "StructureSetROISequence"):
        frames.add(text(roi, "ReferencedFrameOfReferenceUID"))
    return MaskFile(
        path, relative, frozenset(series - {""}), frozenset(frames - {""}),
        text(header, "PatientID"),
    )  # fmt: skip


def _series_of_frame(frame: Dataset) -> Iterable[str]:
    for study in items(frame, "RTReferencedStudySequence"):
        for series in items(study, "RTReferencedSeriesSequence"):
            yield text(series, "SeriesInstanceUID")


def _match_names(
    masks: Sequence[MaskFile],
    groups: Sequence[ScanGroup],
    sites: Mapping[str, str],
    pattern: str,
    chosen: list[list[MaskFile]],
) -> None:
    if pattern:
        for i, group in enumerate(groups):
            wanted = _filled(pattern, group.first, sites.get(group.first.own_uid, ""))
            chosen[i] += [mask for mask in masks if mask.relative.match(wanted)]
        return
    by_name: dict[str, dict[int, None]] = {}
    for i, group in enumerate(groups):
        for name in _names_of(group.first):
            by_name.setdefault(name.casefold(), {})[i] = None
    for mask in masks:
        tied = list(next((by_name[name] for name in _beginnings(mask.stem) if name in by_name), ()))
        if len(tied) > 1:  # scans of one name in several folders: those that share the mask's
            shared = [len(set(mask.relative.parts) & _places(groups[i].first)) for i in tied]
            tied = [i for i, count in zip(tied, shared, strict=True) if count == max(shared)]
        if len(tied) > 1 and is_nifti(mask.path):
            tied = [i for i in tied if _has_grid(mask, groups[i].first)]
        for i in tied:
            chosen[i].append(mask)


def _filled(pattern: str, record: ScanRecord, site: str) -> str:
    """A pattern with the fields of a scan filled in."""
    values = (record.patient_id, record.study_uid, record.series_uid, record.folder, record.name,
              site)  # fmt: skip
    try:
        return pattern.format(
            **{name: glob.escape(value) for name, value in zip(FIELDS, values, strict=True)}
        )
    except (KeyError, IndexError, ValueError, AttributeError):
        fields = ", ".join(f"{{{name}}}" for name in FIELDS)
        raise UsageError(f"--mask-pattern {pattern!r}: its braces may hold only {fields}") from None


def _names_of(record: ScanRecord) -> list[str]:
    return [name for name in (record.name, record.patient_id, record.series_uid) if name]


def _places(record: ScanRecord) -> set[str]:
    return set(PurePath(record.path).parts) | {record.folder}


def _beginnings(stem: str) -> Iterator[str]:
    """A mask's name, then what precedes each of its separators, the longest first."""
    folded = stem.casefold()
    yield folded
    for end in range(len(folded) - 1, 0, -1):
        if folded[end] in _SEPARATORS:
            yield folded[:end]


def _match_grids(
    masks: Sequence[MaskFile],
    groups: Sequence[ScanGroup],
    chosen: list[list[MaskFile]],
    note: Note,
) -> None:
    """Give each NIfTI mask to the only scan without masks that has its grid."""
    open_groups = [i for i, group_masks in enumerate(chosen) if not group_masks] if masks else []
    for mask in masks:
        fitting = [i for i in open_groups if _has_grid(mask, groups[i].first)]
        if len(fitting) == 1:
            chosen[fitting[0]].append(mask)
        else:
            count = f"{len(fitting)} of the scans have" if fitting else "no scan without masks has"
            note(
                f"{label(mask.path)}: its name names no scan and {count} its grid; not used, "
                "give --mask-pattern"
            )


def _has_grid(mask: MaskFile, record: ScanRecord) -> bool:
    """Whether a NIfTI mask has the grid of a scan, however its axes are ordered or turned."""
    try:
        header, _ = read_nifti_header(mask.path)
        scan = record.scan if isinstance(record.scan, CTVolume) else open_headers(record.scan)
    except CvsctError:
        return False
    theirs = _corners(TO_LPS @ header.get_best_affine(), sizes_of(header)[:3])
    ours = _corners(scan.geometry.affine, scan.shape)
    distance = np.linalg.norm(ours[:, None] - theirs[None], axis=-1).min(axis=1)
    voxel_mm = min(*scan.geometry.pixel_mm, scan.geometry.spacing_mm or np.inf)
    return bool(distance.max() <= _MAX_SHIFT_VOXELS * voxel_mm)


def _corners(affine: Float[np.ndarray, "4 4"], shape: Sequence[int]) -> Float[np.ndarray, "8 3"]:
    """Positions of the eight corner voxels of a grid, in mm."""
    index = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, 8)
    corners: Float[np.ndarray, "8 3"] = (affine[:3, :3] @ index + affine[:3, 3:]).T
    return corners
