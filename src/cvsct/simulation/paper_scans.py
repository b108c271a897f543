"""Scans of the paper's experiments, at the scales `tiny`, `demo` and `paper`.

`paper` follows Table 1 of the paper, with virtual bodies in place of its Lungman phantom and its
patients: GE Lung and Siemens Bl64 of different bodies to train on (unpaired), the same 50 slices
of one unseen body on both scanners to test on, and the kernel experiment (Bl64 against Br40 on one
scanner). The paper has no repeat scans: here each test scan is repeated with other noise, which
bounds what any method can reach. The paper gives no numbers of slices per thickness; they are
chosen so that its totals come out exactly. `demo` and `tiny` have the same parts with fewer and
smaller images.

The part `paired` is planned only on request. It serves methods that learn from pairs, which no
patient could give without a second dose: the same bodies are scanned on both scanners, and none of
them occurs in another part. In `demo` and `tiny` it has as many bodies and slices as `train` has
for each scanner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cvsct.core.errors import UsageError
from cvsct.simulation.benchmark import (
    BL64,
    BODIES_PER_SEED,
    BR40,
    GE,
    KERNELS_REPEAT,
    KERNELS_TEST,
    KERNELS_TRAIN,
    LUNG,
    PAIRED,
    PAPER_KVPS,
    REPEAT,
    SIEMENS,
    TEST,
    TRAIN,
    BodyKind,
    ImageSize,
    Scan,
    SimulationOptions,
    Subject,
)
from cvsct.simulation.physics.definition import load_definition


@dataclass(frozen=True)
class _Row:
    """Row of a scale's table: scans of one thickness on one scanner.

    Args:
        part: part of the benchmark.
        scanner: name of the scanner's definition.
        kernels: names of the reconstruction kernels.
        kind: kind of the bodies.
        thickness_mm: slice thickness.
        slices: number of slice positions, spread evenly over the bodies.
        bodies: number of bodies.
        kvps: tube voltages in kV.
        same_body: rows with the same name here scan the same bodies; a row without a name has
            bodies of its own.
    """

    part: str
    scanner: str
    kernels: tuple[str, ...]
    kind: BodyKind
    thickness_mm: float
    slices: int
    bodies: int = 1
    kvps: tuple[float, ...] = (120.0,)
    same_body: str = ""


def _lungman_paper() -> tuple[_Row, ...]:
    """Rows of the phantoms at the paper's scale.

    They give 11,070 training images of the GE scanner and 7,290 of the Siemens scanner, each at
    five tube voltages, and 250 pairs to test on. No stack is longer than 250 mm; the chest of the
    phantom is at least 235 mm long.
    """
    ge = {0.625: (800, 2), 1.25: (600, 3), 2.5: (400, 4), 3.75: (214, 4), 5.0: (200, 4)}
    siemens = {1.0: (600, 3), 1.5: (458, 3), 3.0: (240, 3), 5.0: (160, 4)}
    return (
        *(_Row(TRAIN, GE, LUNG, "lungman", mm, *n, PAPER_KVPS) for mm, n in ge.items()),
        *(_Row(TRAIN, SIEMENS, BL64, "lungman", mm, *n, PAPER_KVPS) for mm, n in siemens.items()),
        _Row(TEST, GE, LUNG, "lungman", 5.0, 50, 1, PAPER_KVPS, same_body=TEST),
        _Row(TEST, SIEMENS, BL64, "lungman", 5.0, 50, 1, PAPER_KVPS, same_body=TEST),
    )


def _patients_paper() -> tuple[_Row, ...]:
    """Rows of the patient-like bodies at the paper's scale, all on the Siemens scanner.

    They give 1,866 training images for the main benchmark, 2 x 4,790 for the kernel experiment, and
    200 pairs to test on. No stack is longer than 200 mm; the smallest patient's chest is 180 mm
    long.
    """
    main_scans = {1.0: (700, 4), 1.5: (500, 4), 3.0: (366, 6), 5.0: (300, 8)}
    kernel_scans = {0.5: (2000, 5), 1.0: (1400, 7), 1.5: (890, 7), 3.0: (500, 8)}
    return (
        *(_Row(TRAIN, SIEMENS, BL64, "patient", mm, *n) for mm, n in main_scans.items()),
        *(
            _Row(KERNELS_TRAIN, SIEMENS, kernel, "patient", mm, *n)
            for kernel in (BL64, BR40)
            for mm, n in kernel_scans.items()
        ),
        *(
            _Row(KERNELS_TEST, SIEMENS, BL64 + BR40, "patient", mm, 50, same_body=KERNELS_TEST)
            for mm in kernel_scans
        ),
    )


def _small(slices: int, kernel_slices: int, more_kvps: tuple[float, ...]) -> tuple[_Row, ...]:
    """Rows of every part: a phantom and a patient-like body per scanner, `slices` of 5 mm each."""
    lungman_kvps = (*more_kvps, 120.0)
    return (
        *(
            row
            for scanner, kernel in ((GE, LUNG), (SIEMENS, BL64))
            for row in (
                _Row(TRAIN, scanner, kernel, "lungman", 5.0, slices, kvps=lungman_kvps),
                _Row(TRAIN, scanner, kernel, "patient", 5.0, slices),
                _Row(TEST, scanner, kernel, "lungman", 5.0, slices, same_body=TEST),
            )
        ),
        *(
            _Row(KERNELS_TRAIN, SIEMENS, kernel, "patient", 3.0, kernel_slices)
            for kernel in (BL64, BR40)
        ),
        _Row(
            KERNELS_TEST,
            SIEMENS,
            BL64 + BR40,
            "patient",
            3.0,
            kernel_slices,
            same_body=KERNELS_TEST,
        ),
    )


def _paired(
    slices: int, bodies: int = 1, lungman_kvps: tuple[float, ...] = (120.0,)
) -> tuple[_Row, ...]:
    """Rows of the paired part: `bodies` of each kind with `slices` in all, on both scanners.

    At the paper's scale they give 200 positions of 5 mm at 120 kVp, 25 of each of eight bodies.
    """
    phantoms = _Row(
        PAIRED, GE, LUNG, "lungman", 5.0, slices, bodies, lungman_kvps, "paired phantoms"
    )
    patients = replace(phantoms, kind="patient", kvps=(120.0,), same_body="paired patients")
    ge = (phantoms, patients)
    return (*ge, *(replace(row, scanner=SIEMENS, kernels=BL64) for row in ge))


def _with_repeats(rows: tuple[_Row, ...]) -> tuple[_Row, ...]:
    """Add a repeat of every test scan, whose noise differs as its random stream names the part."""
    repeat_of = {TEST: REPEAT, KERNELS_TEST: KERNELS_REPEAT}
    repeats = [replace(row, part=repeat_of[row.part]) for row in rows if row.part in repeat_of]
    return (*rows, *repeats)


_TINY_KVPS = (80.0,)

_ROWS = {
    "tiny": (
        *_with_repeats(_small(3, 2, _TINY_KVPS)),
        *_paired(3, lungman_kvps=(*_TINY_KVPS, 120.0)),
    ),
    "demo": (*_with_repeats(_small(8, 3, more_kvps=())), *_paired(8)),
    "paper": (
        *_with_repeats((*_lungman_paper(), *_patients_paper())),
        *_paired(100, bodies=4),
    ),
}
"""Rows of each scale. Append only: the seed of a body follows from its place among all bodies."""


def paper_scans(
    scale: str, seed: int, options: SimulationOptions, images: ImageSize
) -> tuple[Scan, ...]:
    """Scans of the paper's experiments, of all parts and in a fixed order.

    Args:
        scale: `tiny`, `demo` or `paper`.
        seed: seed of bodies and noise.
        options: options of all scans.
        images: sides of image and raster.

    Raises:
        UsageError: if a scanner lacks the reconstructions that the options name.
    """
    scans: list[Scan] = []
    bodies: dict[str, Subject] = {}
    for row in _ROWS[scale]:
        for i, slices in enumerate(_shares(row.slices, row.bodies)):
            body = Subject(row.kind, BODIES_PER_SEED * seed + len(bodies) + 1, options.parenchyma)
            body_key = f"{row.same_body} {i}" if row.same_body else str(len(bodies))
            body = bodies.setdefault(body_key, body)
            is_shifted = row.part in (TEST, REPEAT) and row.scanner == SIEMENS
            shift_mm = options.shift_px * options.fov_mm / images.matrix_px
            scans.append(
                Scan(
                    part=row.part,
                    number=len(scans),
                    body=body,
                    scanner=row.scanner,
                    thickness_mm=row.thickness_mm,
                    first_mm=-(slices - 1) / 2 * row.thickness_mm,
                    slices=slices,
                    kvps=row.kvps,
                    mas=tuple(_mas(row.scanner, kvp, options) for kvp in row.kvps),
                    kernels=row.kernels,
                    noise_seed=seed,
                    fov_mm=options.fov_mm,
                    matrix_px=images.matrix_px,
                    raster_px=images.raster_px,
                    shift_mm=(is_shifted * shift_mm, 0.0),
                    reconstructions=_check_reconstructions(row.scanner, options.reconstructions),
                    mode=options.mode,
                )
            )
    return tuple(scans)


def _check_reconstructions(scanner: str, reconstructions: tuple[str, ...]) -> tuple[str, ...]:
    """Return the reconstructions if the scanner offers all of them and each is named once.

    Raises:
        UsageError: otherwise.
    """
    if not reconstructions or len(set(reconstructions)) < len(reconstructions):
        raise UsageError(
            f"reconstructions {', '.join(reconstructions) or 'none'}; expected one or more, each "
            "once"
        )
    for name in reconstructions:
        load_definition(scanner).strength(name)
    return reconstructions


def _shares(slices: int, bodies: int) -> list[int]:
    """Numbers of slices of each body, as equal as whole numbers allow."""
    return [slices // bodies + (i < slices % bodies) for i in range(bodies)]


def _mas(scanner: str, kvp: float, options: SimulationOptions) -> float:
    """Tube load of a scanner in mAs, matched to the dose of the GE scanner on request."""
    if not options.match_dose or scanner == GE:
        return options.mas
    dose_mgy = load_definition(GE).protocol.ctdi_vol_mgy_per_100mas[kvp] * options.mas / 100
    return load_definition(scanner).mas_for(dose_mgy, kvp)
