"""Feature extraction of a source series and what was derived from it, as work for a process.

Regions are placed once, on the source, and measured in every series of the group, so that a patient
has the same regions before and after harmonization.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from cvsct.core.errors import CvsctError, GeometryError
from cvsct.core.volume import CTVolume
from cvsct.evaluation.features.cache import FeatureCache
from cvsct.evaluation.features.parameters import Parameters
from cvsct.evaluation.features.volume_features import measure_regions, single_thread
from cvsct.evaluation.features.volume_regions import (
    VolumeRegion,
    densitometry,
    region_of,
    seeded_regions,
    slice_mm,
    voxel_mm3,
)
from cvsct.io.dicom.header import label
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.dicom.structure_names import listed
from cvsct.io.mask_files import MaskFile
from cvsct.io.masks import read_label_masks
from cvsct.io.scan_record import ScanGroup, ScanRecord


@dataclass(frozen=True)
class GroupItem:
    """Work for one process: a group of scans, or a part of the regions of one.

    Args:
        key: hash of all that the rows follow from.
        group: the scans.
        cells: cells of each scan's rows that are known from headers, in the order of its records.
        masks: files with masks of its source; None where no masks were given.
        part: number of this part of the regions, from 0.
        parts: number of parts.
    """

    key: str
    group: ScanGroup
    cells: tuple[Mapping[str, Any], ...]
    masks: tuple[MaskFile, ...] | None
    part: int = 0
    parts: int = 1

    @property
    def sources(self) -> list[str]:
        """What its rows come from: its scans by their UIDs or voxels, its masks by their paths."""
        scans = [
            record.own_uid if record.scan.series_uid else record.stamp
            for record in self.group.records
        ]
        masks = [str(mask.path.resolve()) for mask in self.masks or ()]
        return [*(f"scan {scan}" for scan in scans), *(f"mask {mask}" for mask in masks)]


@dataclass
class GroupResult:
    """Rows of a group of scans.

    Args:
        rows: number of the record, number of the region, and cells of the row.
        notes: remarks for the user.
        seconds: wall time.
        missing: what the scan has no region of, without masks, and why.
    """

    rows: list[tuple[int, int, dict[str, Any]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class GroupExtractor:
    """Settings that all groups of a run share; called with each item (`core.workers.Work`).

    Args:
        parameters: what is measured.
        structures: names or patterns of the masks to use; empty for all.
        label_names: names of the numbers in NIfTI masks.
        blocks: number of blocks of soft tissue without masks.
        block_px: their side in pixels.
        seed: seed of their positions.
        cache: cache of features; None for none.
        alone: whether this process is the only worker, and filters may use all cores.
    """

    parameters: Parameters
    structures: tuple[str, ...] = ()
    label_names: Mapping[str, str] = field(default_factory=dict)
    blocks: int = 4
    block_px: int = 32
    seed: int = 0
    cache: FeatureCache | None = None
    alone: bool = True

    def with_threads(self, threads: int) -> Self:
        """The same work, on a machine where it may use so many threads."""
        return replace(self, alone=threads > 1)

    @staticmethod
    def name_of(item: GroupItem) -> str:
        """Name of an item: its hash."""
        return item.key[:16]

    @staticmethod
    def sees(item: GroupItem) -> bool:
        """Whether this machine sees the scans and masks of an item."""
        scans = [record.scan for record in item.group.records]
        files = [scan.files[0] for scan in scans if isinstance(scan, SeriesFiles) and scan.files]
        return all(path.exists() for path in (*files, *(mask.path for mask in item.masks or ())))

    def __call__(self, item: GroupItem, /) -> Generator[int, None, GroupResult]:
        """Measure a group; yields 1 for each scan that is done.

        A scan or region that fails has a row with its reason.
        """
        start = time.perf_counter()
        if not self.alone:
            single_thread()
        result = GroupResult()
        regions: list[VolumeRegion] | None = None
        shape = (0, 0, 0)
        for number, (record, cells) in enumerate(zip(item.group.records, item.cells, strict=True)):
            try:
                if record.error:
                    raise CvsctError(record.error)
                volume = record.read()
                if regions is None:
                    shape = volume.shape
                    regions = self._regions(volume, record, item.masks, result)
                    if self.parameters.dimensions == 2:
                        regions = [region.largest_slice() for region in regions]
                if volume.shape != shape:
                    raise GeometryError(
                        f"{volume.shape} voxels where its source has {shape}; harmonize it again"
                    )
                self._measure(volume, regions, item, number, result)
            except CvsctError as error:
                if item.part == 0:
                    result.rows.append((number, 0, {**cells, "region": "", "error": str(error)}))
            yield 1
        result.seconds = time.perf_counter() - start
        return result

    def _measure(
        self,
        volume: CTVolume,
        regions: Sequence[VolumeRegion],
        item: GroupItem,
        number: int,
        result: GroupResult,
    ) -> None:
        """Add the rows of one scan."""
        mine = list(range(item.part, len(regions), item.parts))
        measured = measure_regions(volume, [regions[i] for i in mine], self.parameters, self.cache)
        for i, features in zip(mine, measured, strict=True):
            row = {
                **item.cells[number],
                **_geometry(volume),
                "region": regions[i].name,
                "voxels": float(regions[i].voxels),
                "volume_mm3": round(regions[i].voxels * voxel_mm3(volume), 6),
                "error": features.error,
                **features.values,
            }
            if not features.error:
                row |= densitometry(volume, regions[i])
            result.rows.append((number, i, row))

    def _regions(
        self,
        volume: CTVolume,
        record: ScanRecord,
        masks: Sequence[MaskFile] | None,
        result: GroupResult,
    ) -> list[VolumeRegion]:
        """Whole regions of a group on its first volume that can be read.

        Raises:
            CvsctError: without masks, if there is no room for a region.
        """
        if masks is None:
            return seeded_regions(
                volume, self.blocks, self.block_px, self.seed, result.missing.append
            )
        if not masks:
            reason = "no mask belongs to this scan by its references, name or grid"
            return [VolumeRegion(name, reason=reason) for name in self.structures or ("",)]
        regions: dict[str, VolumeRegion] = {}
        missing, titles = set(self.structures), list[str]()
        failures: list[tuple[str, str]] = []
        for mask in masks:
            try:
                drawn = read_label_masks(
                    mask.path, volume, self.structures, self.label_names, result.notes.append
                )
            except CvsctError as error:
                failures.append((_rest(mask, record) or "mask", str(error)))
                continue
            if not drawn.titles:
                reason = f"{label(mask.path)}: the mask is empty; check that it was saved"
                failures.append((_rest(mask, record) or "mask", reason))
                continue
            missing &= set(drawn.unmatched)
            titles += [title for title in drawn.titles if title not in titles]
            for title, voxels in drawn.masks.items():
                name = title if title not in regions else f"{title}_{_rest(mask, record)}"
                name = _free_name(name.rstrip("_"), regions)
                regions[name] = region_of(name, voxels)
        for name in self.structures:
            if name in missing:
                absent = f"no label {name!r} in its masks, which have {listed(titles)}"
                reason = failures[0][1] if failures else absent
                regions[name] = VolumeRegion(name, reason=reason)
        for name, reason in () if self.structures else failures:
            free = _free_name(name, regions)
            regions[free] = VolumeRegion(free, reason=reason)
        return list(regions.values())


def _geometry(volume: CTVolume) -> dict[str, float]:
    """Cells of a scan's voxels; the thickness is absent where the header does not tell it."""
    thickness_mm = volume.geometry.thickness_mm
    return {
        **({"thickness_mm": float(thickness_mm)} if thickness_mm else {}),
        "spacing_mm": round(slice_mm(volume), 6),  # positions of slices have rounding errors
        "pixel_mm": volume.pixel_mm,
    }


def _rest(mask: MaskFile, record: ScanRecord) -> str:
    """What a NIfTI mask's name says beside the scan's."""
    names = (record.name, record.patient_id, record.series_uid)
    begun = [name for name in names if name and mask.stem.casefold().startswith(name.casefold())]
    return mask.stem[len(max(begun, key=len)) :].strip("_-. ") if begun else ""


def _free_name(name: str, taken: Mapping[str, VolumeRegion]) -> str:
    """The name, or where it is taken the name with the first free number."""
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def joined_rows(results: Sequence[GroupResult]) -> list[dict[str, Any]]:
    """Rows of all parts of one group, by scan and region."""
    rows = [row for result in results for row in result.rows]
    return [cells for _, _, cells in sorted(rows, key=lambda row: row[:2])]
