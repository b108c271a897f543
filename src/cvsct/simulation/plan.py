"""What each scale of the benchmark scans.

`paper` is Table 1 of the paper with virtual bodies in the place of its Lungman phantom and its
patients: GE Lung and Siemens Bl64 of different bodies to train on (unpaired), the same 50 slices
of one unseen body on both scanners to test on, and the kernel experiment (Bl64 against Br40 on one
scanner). What the paper could not have is the repeat: each test scan once more, with other noise,
which is the best that any method can reach. The numbers of slices a thickness, which the paper does
not give, are chosen so that its totals come out exactly. `demo` and `tiny` have the same parts,
smaller.

Beside the paper, and made only when asked for: `paired`, for methods that learn from pairs, which
no patient could give without a second dose. The same bodies lie on both scanners, others than those
of `train` and of the test; in `demo` and `tiny` as many, with as many slices, as `train` has for
each scanner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cvsct.core.errors import UsageError
from cvsct.simulation.benchmark import (
    BL64,
    BR40,
    GE,
    KERNELS_REPEAT,
    KERNELS_TEST,
    KERNELS_TRAIN,
    LUNG,
    PAIRED,
    PAPER_KVPS,
    PARTS,
    REPEAT,
    SIEMENS,
    TEST,
    TRAIN,
    BodyKind,
    Options,
    Scan,
    ScanMode,
    Subject,
)
from cvsct.simulation.physics.definition import load_definition

BODIES_PER_SEED = 10_000
"""Bodies of the benchmark with seed s have the seeds from s times this on."""


@dataclass(frozen=True)
class _Row:
    """Slices of one thickness on one scanner.

    Args:
        slices: positions in all, spread evenly over the bodies.
        same_body: rows with the same word here scan the same bodies; others their own.
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


@dataclass(frozen=True)
class _Scale:
    rows: tuple[_Row, ...]
    matrix_px: int = 512
    raster_px: int = 1024


def _lungman_paper() -> tuple[_Row, ...]:
    """GE 11,070 images, Siemens 7,290, each at five kVp; 250 pairs to test on.

    No stack is longer than 250 mm; the chest of the phantom is 235 mm long and more.
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
    """Siemens: 1,866 images for the main benchmark, 2 x 4,790 for the kernels, 200 pairs.

    No stack is longer than 200 mm; the smallest patient's chest is 180 mm long.
    """
    main = {1.0: (700, 4), 1.5: (500, 4), 3.0: (366, 6), 5.0: (300, 8)}
    kernel = {0.5: (2000, 5), 1.0: (1400, 7), 1.5: (890, 7), 3.0: (500, 8)}
    return (
        *(_Row(TRAIN, SIEMENS, BL64, "patient", mm, *n) for mm, n in main.items()),
        *(
            _Row(KERNELS_TRAIN, SIEMENS, one, "patient", mm, *n)
            for one in (BL64, BR40)
            for mm, n in kernel.items()
        ),
        *(
            _Row(KERNELS_TEST, SIEMENS, BL64 + BR40, "patient", mm, 50, same_body=KERNELS_TEST)
            for mm in kernel
        ),
    )


def _small(slices: int, kernel_slices: int, more_kvps: tuple[float, ...]) -> tuple[_Row, ...]:
    """Every part once: each scanner a phantom and a patient-like body, `slices` of 5 mm each."""
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
        *(_Row(KERNELS_TRAIN, SIEMENS, one, "patient", 3.0, kernel_slices) for one in (BL64, BR40)),
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
    """Phantoms and patient-like bodies, `bodies` and `slices` of each, all on both scanners.

    At the paper's scale 200 positions of 5 mm at 120 kVp, 25 of each of eight bodies.
    """
    row = _Row(PAIRED, GE, LUNG, "lungman", 5.0, slices, bodies, lungman_kvps, "paired phantoms")
    ge = (row, replace(row, kind="patient", kvps=(120.0,), same_body="paired patients"))
    return (*ge, *(replace(each, scanner=SIEMENS, kernels=BL64) for each in ge))


def _with_repeats(rows: tuple[_Row, ...]) -> tuple[_Row, ...]:
    """Every test scan once more; its noise is another, for its stream is named by the part."""
    repeats = {TEST: REPEAT, KERNELS_TEST: KERNELS_REPEAT}
    again = [replace(row, part=repeats[row.part]) for row in rows if row.part in repeats]
    return (*rows, *again)


_TINY_KVPS = (80.0,)

SCALES = {
    "tiny": _Scale(
        (*_with_repeats(_small(3, 2, _TINY_KVPS)), *_paired(3, lungman_kvps=(*_TINY_KVPS, 120.0))),
        matrix_px=128,
        raster_px=256,
    ),
    "demo": _Scale((*_with_repeats(_small(8, 3, more_kvps=())), *_paired(8))),
    "paper": _Scale(
        (*_with_repeats((*_lungman_paper(), *_patients_paper())), *_paired(100, bodies=4))
    ),
}
"""Rows are only ever appended: a body's seed is its place among all."""


DEFAULTS = Options()


def plan(
    scale: str, seed: int, options: Options = DEFAULTS, parts: Sequence[str] = PARTS
) -> tuple[Scan, ...]:
    """Every scan of the benchmark at one scale, without the pairs, or of the parts given.

    Raises:
        UsageError: if there is no such scale or part, or a scanner cannot scan in that mode.
    """
    if scale not in SCALES:
        raise UsageError(f"no scale {scale!r}; choose one of {', '.join(SCALES)}")
    known = (*PARTS, PAIRED)
    unknown = set(parts) - set(known)
    if unknown or not parts:
        raise UsageError(
            f"no part {', '.join(sorted(unknown)) or 'given'}; choose from {', '.join(known)}"
        )
    size = SCALES[scale]
    scans: list[Scan] = []
    bodies: dict[str, Subject] = {}
    for row in size.rows:
        for i, slices in enumerate(_shares(row.slices, row.bodies)):
            body = Subject(row.kind, BODIES_PER_SEED * seed + len(bodies) + 1, options.parenchyma)
            which = f"{row.same_body} {i}" if row.same_body else str(len(bodies))
            body = bodies.setdefault(which, body)
            beside = row.part in (TEST, REPEAT) and row.scanner == SIEMENS
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
                    matrix_px=size.matrix_px,
                    raster_px=size.raster_px,
                    shift_mm=(beside * options.shift_px * options.fov_mm / size.matrix_px, 0.0),
                    reconstructions=_known(row.scanner, options.reconstructions),
                    mode=options.mode,
                )
            )
    chosen = tuple(scan for scan in scans if scan.part in parts)
    for scanner in {scan.scanner: None for scan in chosen}:
        _refuse_mode(options.mode, scanner)
    return chosen


def _refuse_mode(mode: ScanMode, scanner: str) -> None:
    definition = load_definition(scanner)
    for asked, section in ((mode.tube_current, "tube_current"), (mode.helical, "helical")):
        if asked and getattr(definition, section) is None:
            raise UsageError(
                f"{scanner} has no section {section} in its definition, so it cannot be asked for"
            )


def _known(scanner: str, reconstructions: tuple[str, ...]) -> tuple[str, ...]:
    """The same, if the scanner has them all and none is named twice.

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
    """Slices of each body, as even as whole numbers allow."""
    return [slices // bodies + (i < slices % bodies) for i in range(bodies)]


def _mas(scanner: str, kvp: float, options: Options) -> float:
    if not options.match_dose or scanner == GE:
        return options.mas
    dose_mgy = load_definition(GE).protocol.ctdi_vol_mgy_per_100mas[kvp] * options.mas / 100
    return load_definition(scanner).mas_for(dose_mgy, kvp)
