"""Pairs of scans that differ in one respect, or in many, as data.

Each pair is a benchmark of its own, `pairs/<name>`, with the parts `train`, `test` and `repeat` and
a folder for each of its two techniques, as `cvsct benchmark` expects. All pairs but
`paper` scan the same patient-like bodies, so that figures of two pairs differ by the pair alone;
other bodies come with another seed. The pairs that differ in one respect show what a harmonization
method closes; the last three differ in several at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cvsct.simulation.benchmark import (
    BODIES_PER_SEED,
    FBP,
    GE,
    PAIRS,
    PLAIN_MODE,
    REPEAT,
    SIEMENS,
    TEST,
    TRAIN,
    BodyKind,
    ImageSize,
    Scan,
    ScanMode,
    SimulationOptions,
    Subject,
)

PAIR_PARTS = TRAIN, TEST, REPEAT
FIRST_TEST_BODY, FIRST_TRAIN_BODY = 6001, 6101
"""Seeds of the first bodies of a pair, within the range of a simulation's seed."""
TRAIN_BODIES_APART = 100
"""Distance between the seeds of the two sides' first training bodies."""
FIRST_NUMBER = 1000
"""Number of the first scan of a pair, beyond those of the paper's experiments."""


@dataclass(frozen=True)
class Technique:
    """How a scanner is used: one side of a pair, or one protocol of a hospital.

    Args:
        name: folder name.
        scanner: name of the scanner's definition.
        kernel: name of the reconstruction kernel.
        reconstruction: `fbp`, or a reconstruction that the definition offers.
        thickness_mm: slice thickness.
        mas: tube load of a rotation, in mAs.
        kvp: tube voltage, in kV.
        mode: table, arms, tube current and helix.
    """

    name: str
    scanner: str
    kernel: str
    reconstruction: str = FBP
    thickness_mm: float = 5.0
    mas: float = 100.0
    kvp: float = 120.0
    mode: ScanMode = PLAIN_MODE

    def scan(
        self,
        part: str,
        number: int,
        body: Subject,
        slices: int,
        spacing_mm: float,
        seed: int,
        options: SimulationOptions,
        images: ImageSize,
    ) -> Scan:
        """Scan of a body with this technique, in the middle of its z range.

        Args:
            part: folder of the scan, which holds one for the technique.
            number: index of the scan in the plan.
            slices: number of slices.
            spacing_mm: distance between slices.
            seed: seed of the noise.
            options: options of all scans, beside what the technique says.
            images: sides of image and raster.
        """
        asked = options.mode
        return Scan(
            part=part,
            number=number,
            body=body,
            scanner=self.scanner,
            thickness_mm=self.thickness_mm,
            first_mm=-(slices - 1) / 2 * spacing_mm,
            slices=slices,
            kvps=(self.kvp,),
            mas=(round(self.mas * options.mas / 100, 3),),
            kernels=(self.kernel,),
            noise_seed=seed,
            fov_mm=options.fov_mm,
            matrix_px=images.matrix_px,
            raster_px=images.raster_px,
            reconstructions=(self.reconstruction,),
            mode=ScanMode(
                table=asked.table or self.mode.table,
                arms=asked.arms if asked.arms != PLAIN_MODE.arms else self.mode.arms,
                tube_current=asked.tube_current or self.mode.tube_current,
                helical=asked.helical or self.mode.helical,
            ),
            spacing_mm=spacing_mm if spacing_mm != self.thickness_mm else 0.0,
            side=self.name,
        )


@dataclass(frozen=True)
class Pair:
    """Two techniques to harmonize.

    Args:
        difference: what distinguishes the two, in words.
        one_acquisition: whether both are made of the same readings in the test, as two
            reconstructions of one scan are.
        kind: kind of the bodies.
    """

    name: str
    difference: str
    first: Technique
    second: Technique
    one_acquisition: bool = False
    kind: BodyKind = "patient"

    @property
    def techniques(self) -> tuple[Technique, Technique]:
        """Both techniques."""
        return self.first, self.second


_AS, _ICT, _REVOLUTION = "siemens-definition-as", "philips-ict", "ge-revolution-ct"

ALL_PAIRS = (
    Pair(
        "kernel", "kernel: Bl57 and Br44 of one acquisition",
        Technique("Bl57", _AS, "Bl57"), Technique("Br44", _AS, "Br44"), one_acquisition=True,
    ),
    Pair(
        "dose", "dose: 200 and 40 mAs with one kernel",
        Technique("200mAs", _ICT, "B", mas=200.0), Technique("40mAs", _ICT, "B", mas=40.0),
    ),
    Pair(
        "vendor", "vendor: GE STANDARD and Philips B, soft kernels of like sharpness",
        Technique("ge-standard", _REVOLUTION, "STANDARD"), Technique("philips-b", _ICT, "B"),
    ),
    Pair(
        "reconstruction", "reconstruction: ADMIRE 4 and filtered back-projection, one acquisition",
        Technique("iterative-4", SIEMENS, "Br40", reconstruction="iterative-4"),
        Technique(FBP, SIEMENS, "Br40"), one_acquisition=True,
    ),
    Pair(
        "thickness", "thickness: 5 and 1 mm at the same positions",
        Technique("5mm", SIEMENS, "Br40"), Technique("1mm", SIEMENS, "Br40", thickness_mm=1.0),
    ),
    Pair(
        "tone", "tone: a calibration that differs by -3 to +6 HU by tissue",
        Technique("toned", "siemens-somatom-force-toned", "Br40"),
        Technique("plain", SIEMENS, "Br40"),
    ),
    Pair(
        "denoised-quiet-fbp-noisy",
        "kernel, dose, reconstruction, tone and geometry: denoised-quiet and fbp-noisy",
        Technique(
            "denoised-quiet", "denoised-quiet", "MEDIUM", "denoised-1", mas=120.0,
            mode=ScanMode(tube_current=True),
        ),
        Technique("fbp-noisy", "fbp-noisy", "SHARP", mas=24.0),
    ),
    Pair(
        "held-out",
        "vendor, kernel, dose, reconstruction and tube current: held out of all tuning",
        Technique(
            "canon", "canon-aquilion-one", "FC08", "iterative-3", mas=80.0,
            mode=ScanMode(tube_current=True),
        ),
        Technique("ge", _REVOLUTION, "BONEPLUS", mas=120.0),
    ),
    Pair(
        "paper", "as hard as the paper's input: GE Lung and Siemens Bl64 with ADMIRE 3",
        Technique("ge", GE, "Lung"), Technique("siemens", SIEMENS, "Bl64", "iterative-3"),
        kind="lungman",
    ),
)  # fmt: skip
"""Every pair there is."""


@dataclass(frozen=True)
class PairSize:
    """How much of each pair is scanned at a scale.

    Args:
        train_bodies: bodies of each technique's training scans, no two alike.
        test_bodies: bodies that both techniques scan.
        slices: positions of each body, `spacing_mm` apart.
    """

    train_bodies: int
    test_bodies: int
    slices: int
    spacing_mm: float = 5.0


def pair_scans(
    size: PairSize, seed: int, options: SimulationOptions, images: ImageSize
) -> tuple[Scan, ...]:
    """Scans of every pair, in a fixed order.

    Args:
        size: numbers of bodies and slices.
        seed: seed of bodies and noise.
        options: options of all scans.
        images: sides of image and raster.
    """
    scans: list[Scan] = []
    for pair in ALL_PAIRS:
        for side, technique in enumerate(pair.techniques):
            for part in PAIR_PARTS:
                folder = f"{PAIRS}/{pair.name}/{part}"
                for body_seed in _body_seeds(part, side, size):
                    body = Subject(
                        pair.kind, BODIES_PER_SEED * seed + body_seed, options.parenchyma,
                        emphysema=options.emphysema if pair.kind == "patient" else 0.0,
                    )  # fmt: skip
                    scan = technique.scan(
                        folder, FIRST_NUMBER + len(scans), body, size.slices, size.spacing_mm,
                        seed, options, images,
                    )  # fmt: skip
                    if pair.one_acquisition and part != TRAIN:
                        scan = replace(scan, acquisition=f"{folder}/{body.name}")
                    scans.append(scan)
    return tuple(scans)


def _body_seeds(part: str, side: int, size: PairSize) -> range:
    """Seeds of the bodies of a part: others for each side in the training, the same in the test."""
    if part != TRAIN:
        return range(FIRST_TEST_BODY, FIRST_TEST_BODY + size.test_bodies)
    first = FIRST_TRAIN_BODY + TRAIN_BODIES_APART * side
    return range(first, first + size.train_bodies)
