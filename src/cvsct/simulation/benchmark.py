"""Data types of a simulation: virtual bodies, scans, their series and output folders.

Folders of the output: `train/<scanner>`, `test/<scanner>`, `repeat/<scanner>`, `paired/<scanner>`,
and `kernels/train/<kernel>`, `kernels/test/<kernel>`, `kernels/repeat/<kernel>`; of a pair
`pairs/<pair>/train/<side>` and so on, of the study `study/<hospital>`. Each holds one folder per
series.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal

from cvsct.core.errors import UsageError
from cvsct.core.names import portable_name

GE, SIEMENS = "ge-revolution-evo", "siemens-somatom-force"
LUNG, BL64, BR40 = ("Lung",), ("Bl64",), ("Br40",)
PAPER_KVPS = (70.0, 80.0, 100.0, 120.0, 140.0)
TRAIN, TEST, REPEAT, PAIRED = "train", "test", "repeat", "paired"
PAIRS, STUDY = "pairs", "study"
KERNELS = "kernels"
KERNELS_TRAIN, KERNELS_TEST, KERNELS_REPEAT = (
    f"{KERNELS}/{part}" for part in (TRAIN, TEST, REPEAT)
)
PARTS = (TRAIN, TEST, REPEAT, KERNELS_TRAIN, KERNELS_TEST, KERNELS_REPEAT)
"""Parts that are simulated by default: all but the paired scans."""

FILE_HEADER_BYTES = 4096
"""Bytes of a DICOM file besides its pixels, rounded up to a block of the file system."""
FBP = "fbp"
"""Name of filtered back-projection, the reconstruction that every scanner offers."""

BODIES_PER_SEED = 10_000
"""Range of body seeds of one simulation: with seed s they start at s times this, plus 1."""

ARMS = ("up", "side")
"""Positions of the arms: raised out of the scan, or along the body."""

BodyKind = Literal["lungman", "patient"]


@dataclass(frozen=True)
class LesionTraits:
    """Size, density and texture of a simulated lung lesion.

    Args:
        diameter_mm: diameter of the sphere about which the lobulated surface varies.
        hu: mean CT number at 120 kVp.
        heterogeneity_hu: standard deviation of the CT number within the lesion.
        grain_mm: correlation length of that texture.
    """

    diameter_mm: float
    hu: float
    heterogeneity_hu: float
    grain_mm: float


@dataclass(frozen=True)
class Subject:
    """Identity of a virtual body: equal values give the same body on every scanner.

    Args:
        kind: `lungman` for an anthropomorphic chest phantom, `patient` for a patient-like body.
        seed: seed of the anatomy.
        parenchyma: fill the lungs of the phantom with textured tissue instead of air.
        lesion: a lesion in the lungs of a patient-like body, near the middle of its z range.
        emphysema: share of the parenchyma of a patient-like body that emphysema has destroyed; 0
            for what the seed gives.
    """

    kind: BodyKind
    seed: int
    parenchyma: bool = False
    lesion: LesionTraits | None = None
    emphysema: float = 0.0

    @property
    def name(self) -> str:
        """Name of the body, unique among bodies and safe as a folder name."""
        suffix = "-parenchyma" if self.parenchyma else ""
        suffix += "-lesion" if self.lesion else ""
        suffix += f"-emphysema{1000 * self.emphysema:.0f}" if self.emphysema else ""
        return f"{self.kind}-{self.seed:04d}{suffix}"


@dataclass(frozen=True)
class ScanMode:
    """Options of an acquisition; by default an axial scan of the body alone at constant current.

    Args:
        table: whether the body lies on a table.
        arms: position of the arms: `up` is out of the scan, `side` along the body.
        tube_current: whether the tube current follows the attenuation, by the law of the scanner's
            definition.
        helical: whether the scan is helical, with the pitch and the interpolation of the scanner's
            definition.

    Raises:
        UsageError: if there is no such position of the arms.
    """

    table: bool = False
    arms: str = "up"
    tube_current: bool = False
    helical: bool = False

    def __post_init__(self) -> None:
        if self.arms not in ARMS:
            raise UsageError(f"arms {self.arms!r}; choose one of {', '.join(ARMS)}")

    @property
    def has_surroundings(self) -> bool:
        """Whether the beam crosses a table or arms as well as the body."""
        return self.table or self.arms == "side"


PLAIN_MODE = ScanMode()
"""Axial scan of the body alone at a constant tube current."""


@dataclass(frozen=True)
class PlannedSeries:
    """One reconstruction of a scan at one tube voltage, which gets a folder of its own.

    Args:
        kvp: tube voltage in kV.
        mas: nominal tube load of a rotation, in mAs.
        kernel: name of the reconstruction kernel.
        folder: folder of the slices, relative to the output.
        number: DICOM series number.
        reconstruction: `fbp`, or a reconstruction that the scanner's definition offers.
    """

    kvp: float
    mas: float
    kernel: str
    folder: str
    number: int
    reconstruction: str = FBP


@dataclass(frozen=True)
class Scan:
    """Scan of one body on one scanner at one slice thickness.

    Its series, one per tube voltage, kernel and reconstruction, share one projection of the body.

    Args:
        part: part of the benchmark, such as `train`, `pairs/dose/test` or `study`.
        number: index of the scan in the plan, which makes series numbers unique.
        body: the body.
        scanner: name of the scanner's definition.
        thickness_mm: slice thickness.
        first_mm: centre of the first slice, relative to the middle of the body's z range; the
            other slices follow towards the head, `spacing_mm` apart.
        slices: number of slices.
        kvps: tube voltages in kV.
        mas: nominal tube load of a rotation in mAs, for each tube voltage.
        kernels: names of the reconstruction kernels.
        noise_seed: seed of the noise.
        fov_mm: reconstructed field of view.
        matrix_px: side of the image matrix.
        raster_px: side of the raster on which the body is projected.
        shift_mm: distance in x and y from the isocentre to the centre of the image grid. The DICOM
            headers do not state it, so it acts as misregistration.
        reconstructions: reconstructions of each acquisition: `fbp`, and what the scanner's
            definition offers (`iterative-3`, `denoised-1`).
        mode: table, arms, tube current and helix.
        spacing_mm: distance between slices; 0 for the slice thickness.
        side: folder name of the scan's series within its part; empty for the scanner's name.
        acquisition: name of the noise's random stream. Scans that share it, and scanner, body and
            positions, are reconstructions of the same readings. Empty for a stream of its own.
    """

    part: str
    number: int
    body: Subject
    scanner: str
    thickness_mm: float
    first_mm: float
    slices: int
    kvps: tuple[float, ...]
    mas: tuple[float, ...]
    kernels: tuple[str, ...]
    noise_seed: int
    fov_mm: float
    matrix_px: int
    raster_px: int
    shift_mm: tuple[float, float] = (0.0, 0.0)
    reconstructions: tuple[str, ...] = (FBP,)
    mode: ScanMode = PLAIN_MODE
    spacing_mm: float = 0.0
    side: str = ""
    acquisition: str = ""

    def record(self) -> dict[str, Any]:
        """Values of the scan as plain data, for `plan.json` and the manifest.

        Fields that scans had not always had, from `reconstructions` on, are left out where they
        have their defaults, and so are lesion and emphysema of a body without them: records of
        earlier plans stay valid.
        """
        values = asdict(self)
        for name, default in _LATER_FIELDS.items():
            if getattr(self, name) == default:
                del values[name]
        if self.body.lesion is None:
            del values["body"]["lesion"]
        if self.body.emphysema == 0:
            del values["body"]["emphysema"]
        return values

    @property
    def name(self) -> str:
        """Body and slice thickness, such as `patient-0005_5mm`."""
        return f"{self.body.name}_{self.thickness_mm:g}mm"

    @property
    def role(self) -> str:
        """Part and side, such as `test/ge-revolution-evo`; with `name`, unique in a plan."""
        return f"{self.part}/{self.side or self.scanner}"

    @property
    def stream(self) -> str:
        """Name of the random stream of the noise."""
        return self.acquisition or str(self)

    def __str__(self) -> str:
        return f"{self.role}/{self.name}"

    @property
    def n_images(self) -> int:
        """Number of images: slices times tube voltages times kernels times reconstructions."""
        return self.slices * len(self.kvps) * len(self.kernels) * len(self.reconstructions)

    @property
    def n_bytes(self) -> int:
        """Approximate size of the files on disk, in bytes."""
        return self.n_images * (2 * self.matrix_px**2 + FILE_HEADER_BYTES)

    def z_mm(self, i: int) -> float:
        """Position of the centre of slice `i`, relative to the middle of the body's z range."""
        return self.first_mm + i * (self.spacing_mm or self.thickness_mm)

    def series(self) -> tuple[PlannedSeries, ...]:
        """Series of the scan: one per tube voltage, kernel and reconstruction."""
        side_folder = portable_name(self.side or self.scanner)
        is_kernel_part = self.part.startswith(f"{KERNELS}/")
        planned: list[PlannedSeries] = []
        for kvp, mas in zip(self.kvps, self.mas, strict=True):
            for kernel, reconstruction in product(self.kernels, self.reconstructions):
                kernel_name = portable_name(kernel)
                parent = f"{self.part}/{kernel_name if is_kernel_part else side_folder}"
                name = f"{self.body.name}_{kvp:g}kVp_{self.thickness_mm:g}mm_{kernel_name}"
                suffix = f"_{reconstruction}" if reconstruction != FBP else ""
                number = 100 * (self.number + 1) + len(planned) + 1
                planned.append(
                    PlannedSeries(
                        kvp, mas, kernel, f"{parent}/{name}{suffix}", number, reconstruction
                    )
                )
        return tuple(planned)


@dataclass(frozen=True)
class ImageSize:
    """Sides of the square image matrix and of the raster that is projected, in pixels."""

    matrix_px: int = 512
    raster_px: int = 1024


_LATER_FIELDS = {
    "reconstructions": (FBP,),
    "mode": PLAIN_MODE,
    "spacing_mm": 0.0,
    "side": "",
    "acquisition": "",
}
"""Fields of `Scan`, with their defaults, that records leave out where they are not used."""


@dataclass(frozen=True)
class SimulationOptions:
    """Options of a simulation, which hold for all its scans.

    Args:
        mas: tube load of one rotation in mAs, on both scanners unless `match_dose`. Pairs and study
            name tube loads of their own, which are multiplied by this over 100.
        match_dose: give the Siemens scanner the mAs at which its CTDIvol equals the GE scanner's.
        shift_px: misregistration of the test pair: shift of the Siemens images in x, in pixels.
        parenchyma: fill the lungs of the phantom with textured tissue instead of air.
        fov_mm: reconstructed field of view.
        reconstructions: reconstructions of each acquisition.
        mode: table, arms, tube current and helix.
    """

    mas: float = 100.0
    match_dose: bool = False
    shift_px: float = 0.0
    parenchyma: bool = False
    fov_mm: float = 350.0
    reconstructions: tuple[str, ...] = (FBP,)
    mode: ScanMode = PLAIN_MODE

    def record(self) -> dict[str, Any]:
        """Options as plain data; reconstructions and mode are left out where they have defaults."""
        values = asdict(self)
        mode = values.pop("mode")
        if self.reconstructions == (FBP,):
            del values["reconstructions"]
        return values if self.mode == PLAIN_MODE else {**values, **mode}
