"""Definition of a virtual scanner, read from a TOML file and validated; names state the units.

A new scanner is one file: copy one of `definitions/`, change it, and give its path in place of a
name. A file that begins with `base = "name"` takes from that scanner every value that it does not
give itself. In the files of `definitions/` each value carries its source, or the word "chosen".
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cvsct.core.errors import UsageError
from cvsct.core.names import portable_name
from cvsct.simulation.benchmark import FBP
from cvsct.simulation.phantom.materials import WATER, material_named
from cvsct.simulation.physics.spectrum import Spectrum, tube_spectrum

FOLDER = "definitions"
BOWTIE_KEV = 60.0
"""Energy at which the thickness of a bowtie filter is converted to water."""


def _known_material(name: str) -> str:
    """Validator of a material's name."""
    try:
        return material_named(name).name
    except UsageError as error:
        raise ValueError(str(error)) from None


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
MaterialName = Annotated[str, AfterValidator(_known_material)]


class _Section(BaseModel):
    """Table of a definition file, frozen; missing, unknown and infinite values are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GantryGeometry(_Section):
    """Geometry of source and detector, an arc of equal channels centred on the source.

    Args:
        source_isocentre_mm: distance from the source to the isocentre.
        source_detector_mm: distance from the source to the detector.
        channels: number of channels of a detector row.
        channel_mm: width of one channel along the arc.
        views: number of views per rotation, a multiple of 4.
        sampling: method that halves the spacing of rays: a detector shifted by a quarter of a
            channel, or a flying focal spot.
        sub_views: number of gantry positions over which the intensity of each reading is averaged;
            with 1 the gantry stands still for each view.
    """

    source_isocentre_mm: Positive
    source_detector_mm: Positive
    channels: Annotated[int, Field(ge=16)]
    channel_mm: Positive
    views: Annotated[int, Field(ge=16, multiple_of=4)]
    sampling: Literal["quarter-offset", "flying-focal-spot"]
    sub_views: Annotated[int, Field(ge=1, le=32)] = 1

    @model_validator(mode="after")
    def _detector_is_beyond_the_isocentre(self) -> GantryGeometry:
        if not self.source_detector_mm > self.source_isocentre_mm:
            raise ValueError("source_detector_mm must exceed source_isocentre_mm")
        fan_deg = np.degrees(self.fan_angle_rad)
        if not fan_deg < 90:
            raise ValueError(f"the channels make a fan of {fan_deg:.0f} degrees; expected < 90")
        return self

    @property
    def channel_rad(self) -> float:
        """Angle that one channel subtends at the source."""
        return self.channel_mm / self.source_detector_mm

    @property
    def fan_angle_rad(self) -> float:
        """Angle that the whole detector subtends at the source."""
        return self.channels * self.channel_rad


class Tube(_Section):
    """X-ray tube: tungsten anode, filters and tube voltages.

    Args:
        anode_deg: angle of the anode.
        filtration_mm: thickness of the total filtration by material: inherent filtration, flat
            filters, and the thinnest part of the bowtie if its `minimum_mm` is 0.
        focal_spot_mm: width of the focal spot in the plane of rotation.
        kvp: tube voltages that can be chosen.
    """

    anode_deg: Positive
    filtration_mm: Annotated[dict[MaterialName, NotNegative], Field(min_length=1)]
    focal_spot_mm: Positive
    kvp: Annotated[tuple[Positive, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _spectra_exist(self) -> Tube:
        for kvp in self.kvp:
            try:
                tube_spectrum(self.anode_deg, kvp, {})
            except UsageError as error:
                raise ValueError(str(error)) from None
        return self


class Detector(_Section):
    """Energy-integrating scintillation detector.

    Args:
        material: material of the scintillator.
        thickness_mm: thickness of the scintillator.
        efficiency: share of the absorbed photons that count (septa, light, electronics).
        row_mm: height of one detector row at the isocentre; a thicker slice sums several rows.
        electronic_noise_kev: standard deviation of the electronic noise of one reading of one
            channel in one row.
    """

    material: MaterialName
    thickness_mm: Positive
    efficiency: Annotated[float, Field(gt=0, le=1)]
    row_mm: Positive
    electronic_noise_kev: NotNegative

    def absorbed_share(
        self, energies_kev: Float[np.ndarray, " energies"]
    ) -> Float[np.ndarray, " energies"]:
        """Share of the photons that are detected, each with its whole energy."""
        per_mm = material_named(self.material).attenuation_per_mm(energies_kev)
        return self.efficiency * (1 - np.exp(-self.thickness_mm * per_mm))


class Bowtie(_Section):
    """Bowtie filter, whose thickness increases towards the sides of the fan.

    Args:
        material: material of the filter.
        water_radius_mm: radius of the centred water cylinder that the filter is designed for.
        strength: 0 is a flat filter; with 1 filter and cylinder together attenuate all rays equally
            at 60 keV.
        minimum_mm: thickness on the central ray.
    """

    material: MaterialName
    water_radius_mm: Positive
    strength: Annotated[float, Field(ge=0, le=1)]
    minimum_mm: NotNegative

    def thickness_mm(
        self, fan_rad: Float[np.ndarray, "*shape"], source_isocentre_mm: float
    ) -> Float[np.ndarray, "*shape"]:
        """Thickness of the filter along the rays at these fan angles."""
        energy_kev = np.array([BOWTIE_KEV])
        per_water_mm = float(
            WATER.attenuation_per_mm(energy_kev)[0]
            / material_named(self.material).attenuation_per_mm(energy_kev)[0]
        )
        distance_mm = source_isocentre_mm * np.sin(fan_rad)
        half_chord_mm = np.sqrt(np.maximum(self.water_radius_mm**2 - distance_mm**2, 0))
        missing_mm = 2 * (self.water_radius_mm - half_chord_mm)
        return np.asarray(self.minimum_mm + self.strength * per_water_mm * missing_mm)


class Kernel(_Section):
    """Reconstruction kernel, defined by its modulation of the ideal image's spatial frequencies.

    M(f) = [1 + boost (b(f) + b(-f))] exp(-ln2 (f / cutoff)^n) over its value at 0, with the bump
    b(f) = exp(-((f - boost_lp_mm) / boost_width_lp_mm)^2). Both bumps are needed: one alone has a
    slope at f = 0, a cusp that gives each edge a tail of some HU over centimetres.
    """

    boost: NotNegative = 0.0
    boost_lp_mm: NotNegative = 0.0
    boost_width_lp_mm: Positive = 1.0
    cutoff_lp_mm: Positive
    exponent: Positive

    def modulation(self, f_lp_mm: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Modulation M at these frequencies, which must not be negative; it is 1 at 0."""
        f = np.append(f_lp_mm, 0.0)
        bumps = [
            np.exp(-(((side * f - self.boost_lp_mm) / self.boost_width_lp_mm) ** 2))
            for side in (1, -1)
        ]
        lift = 1 + self.boost * (bumps[0] + bumps[1])
        values = lift / lift[-1] * np.exp(-np.log(2) * (f / self.cutoff_lp_mm) ** self.exponent)
        return np.reshape(values[:-1], f_lp_mm.shape)


class Protocol(_Section):
    """Scan protocol: slice thicknesses, rotation time and dose.

    Args:
        thicknesses_mm: slice thicknesses that can be chosen.
        rotation_s: time of one rotation.
        ctdi_vol_mgy_per_100mas: CTDIvol in the 32 cm body phantom by kVp, by which the doses of
            scanners are matched.
    """

    thicknesses_mm: Annotated[tuple[Positive, ...], Field(min_length=1)]
    rotation_s: Positive
    ctdi_vol_mgy_per_100mas: dict[Positive, Positive]


class Iterative(_Section):
    """Strength of a statistical iterative reconstruction.

    Args:
        blend: share of the iterative image in the final image; the rest is filtered
            back-projection.
        balance: ratio of the spatial frequency at which penalty and data have equal weight to the
            kernel's cutoff.
    """

    blend: Annotated[float, Field(gt=0, le=1)]
    balance: Positive


class Denoised(_Section):
    """Strength of a denoiser of the filtered back-projection's image.

    Args:
        blend: share of the denoised image in the final image; the rest is filtered back-projection.
        threshold: largest difference of neighboring pixels that is smoothed as noise, in standard
            deviations of the noise.
    """

    blend: Annotated[float, Field(gt=0, le=1)]
    threshold: Positive


Strength = Iterative | Denoised


class Reconstruction(_Section):
    """Reconstructions that a scanner offers beside filtered back-projection.

    Args:
        family: name of the manufacturer's product.
        edge: difference of neighboring pixels above which it is treated as an edge, in standard
            deviations of the filtered back-projection's noise.
        dose_exponent: exponent with which smoothing grows with the ratio of the scan's noise
            variance to that of a reference scan (25 cm of water, 100 mAs, 5 mm).
        iterative, denoised: strengths, weakest first; `iterative-1` is the first.
    """

    family: Annotated[str, Field(min_length=1, max_length=14)]
    edge: Positive
    dose_exponent: NotNegative
    iterative: Annotated[tuple[Iterative, ...], Field(max_length=9)] = ()
    denoised: Annotated[tuple[Denoised, ...], Field(max_length=9)] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the reconstructions as a plan uses them, such as `iterative-1`."""
        return tuple(
            f"{kind}-{level}"
            for kind, strengths in (("iterative", self.iterative), ("denoised", self.denoised))
            for level in range(1, len(strengths) + 1)
        )


TUBE_CURRENT_LAWS: dict[str, dict[str, float]] = {
    "siemens-care-dose4d-weak": {"angular_exponent": 0.5, "z_exponent": 0.25},
    "siemens-care-dose4d-average": {"angular_exponent": 0.5, "z_exponent": 0.5},
    "siemens-care-dose4d-strong": {"angular_exponent": 0.5, "z_exponent": 0.75},
    "ge-smartma": {"angular_exponent": 0.5},
    "philips-doseright": {"angular_exponent": 0.5, "z_exponent": 0.7},
    "canon-sureexposure-3d": {"angular_exponent": 0.5, "z_exponent": 1.0},
}
"""Exponents of tube-current modulation by vendor.

With the angular exponent 0.5 a given dose gives the least noise (Gies et al., Med Phys 26,
1999). Along z an exponent of 0 is constant dose and 1 constant noise; Siemens' operating manuals
draw their three strengths between these limits without numbers, so 0.25, 0.5 and 0.75 are chosen.
GE's AutomA keeps the noise constant by its noise index, Canon's SureExposure its standard
deviation; the 0.7 of Philips, which keeps the quality of a reference image, is chosen.
"""


class TubeCurrent(_Section):
    """Modulation of the tube current by the object's attenuation, angular and along z.

    The current of a view is the mean of its rotation times its attenuation over the rotation's
    mean attenuation, to the power `angular_exponent`. The mean of a rotation follows either the
    attenuation of a reference (`z_exponent` and `reference_water_mm`) or a noise index.

    Args:
        law: name in `TUBE_CURRENT_LAWS`, whose exponents hold unless the fields below override
            them.
        angular_exponent: exponent of the modulation within a rotation.
        z_exponent: exponent of the modulation along z; 0 keeps the dose constant, 1 the noise.
        reference_water_mm: water path of the reference, whose attenuation gets the nominal mAs.
        noise_index: standard deviation (HU) at the centre of a water-equivalent object's image
            with `noise_index_kernel` (GE's definition).
        noise_index_kernel: kernel of the image that the noise index is defined for.
        noise_index_thickness_mm: slice thickness that the noise index of a helical scan is defined
            for, so that thin and thick series share one current. By default, and in axial scans,
            it is the thickness of the scan.
        minimum_ma, maximum_ma: limits of the current in each view.
    """

    law: str | None = None
    angular_exponent: Annotated[float, Field(ge=0, le=1)]
    z_exponent: Annotated[float, Field(ge=0, le=1)] | None = None
    reference_water_mm: Positive | None = None
    noise_index: Positive | None = None
    noise_index_kernel: str | None = None
    noise_index_thickness_mm: Positive | None = None
    minimum_ma: NotNegative
    maximum_ma: Positive

    @model_validator(mode="before")
    @classmethod
    def _add_exponents_of_law(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("law") is None:
            return values
        law = values["law"]
        if law not in TUBE_CURRENT_LAWS:
            raise ValueError(f"law must be one of {', '.join(TUBE_CURRENT_LAWS)}, not {law!r}")
        return {**TUBE_CURRENT_LAWS[law], **values}

    @model_validator(mode="after")
    def _one_rule_along_z(self) -> TubeCurrent:
        by_reference = self.z_exponent is not None and self.reference_water_mm is not None
        by_index = self.noise_index is not None and self.noise_index_kernel is not None
        given = (
            self.z_exponent, self.reference_water_mm, self.noise_index, self.noise_index_kernel,
        )  # fmt: skip
        if by_reference == by_index or sum(value is not None for value in given) != 2:
            raise ValueError(
                "give either z_exponent (or a law that has one) and reference_water_mm, "
                "or noise_index and noise_index_kernel"
            )
        if not self.minimum_ma < self.maximum_ma:
            raise ValueError("minimum_ma must lie below maximum_ma")
        return self


class Scatter(_Section):
    """Scattered radiation and its imperfect correction.

    Args:
        ratio: scatter-to-primary ratio on the central ray behind 30 cm of water, at any voltage.
        forward_rad: standard deviation of the blur of singly scattered photons at the detector.
        multiple_rad: standard deviation of the blur of photons scattered more than once.
        multiple_water_mm: water path behind which the share of single scatter has fallen to 1/e.
        residue: share of the scatter that the correction leaves: 0 is a perfect correction, 1 is
            none, a negative share is over-correction.
        correction_noise: relative standard deviation of the correction's estimate, which varies
            from view to view and smoothly along a view.
    """

    ratio: Positive
    forward_rad: Positive
    multiple_rad: Positive
    multiple_water_mm: Positive
    residue: Annotated[float, Field(ge=-1, le=1)]
    correction_noise: NotNegative


class BeamHardening(_Section):
    """Correction of beam hardening; by default a water correction of the fifth order.

    Args:
        calibration_material: material whose paths the correction makes linear. With any material,
            20 cm of water read as 20 cm of water.
        calibration_order: order of each channel's polynomial; a low order leaves cupping.
        bone_correction: share of the hardening by bone that is corrected: 0 is a water correction
            alone, 1 is a perfect correction, more is over-correction.
    """

    calibration_material: MaterialName = "water"
    calibration_order: Annotated[int, Field(ge=1, le=5)] = 5
    bone_correction: Annotated[float, Field(ge=0, le=1.5)] = 0.0


class Helical(_Section):
    """Helical scan: pitch and interpolation of readings to slices.

    Args:
        pitch: table feed of one rotation divided by the collimation.
        interpolation: interpolation between readings one turn apart (360LI), half a turn apart
            (180LI), or to a width that does not depend on the pitch (z-filter).
    """

    pitch: Annotated[float, Field(gt=0, le=3)]
    interpolation: Literal["360LI", "180LI", "z-filter"]


class ScannerDefinition(_Section):
    """Definition of a virtual scanner.

    Args:
        name: name of the scanner in plans and folders.
        manufacturer, model, software: values of the DICOM attributes of the same names.
        geometry: source and detector.
        tube: X-ray tube.
        detector: detector.
        bowtie: bowtie filter.
        kernels: reconstruction kernels by name, which is written as DICOM's Convolution Kernel.
        protocol: scan protocol.
        reconstruction: reconstructions beside filtered back-projection.
        tube_current: modulation of the tube current.
        scatter: scattered radiation.
        beam_hardening: correction of beam hardening.
        helical: helical scan.
        tone_hu: pairs of a CT number and the offset that this scanner's calibration adds to it,
            with rising CT numbers. Between them the offset follows a monotone curve, beyond them it
            is constant.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    manufacturer: Annotated[str, Field(min_length=1, max_length=64)]
    model: Annotated[str, Field(min_length=1, max_length=64)]
    software: Annotated[str, Field(min_length=1, max_length=64)] = "virtual"
    geometry: GantryGeometry
    tube: Tube
    detector: Detector
    bowtie: Bowtie
    kernels: Annotated[dict[str, Kernel], Field(min_length=1)]
    protocol: Protocol
    reconstruction: Reconstruction | None = None
    tube_current: TubeCurrent | None = None
    scatter: Scatter | None = None
    beam_hardening: BeamHardening | None = None
    helical: Helical | None = None
    tone_hu: Annotated[tuple[tuple[float, float], ...], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _noise_index_names_a_kernel(self) -> ScannerDefinition:
        name = self.tube_current and self.tube_current.noise_index_kernel
        if name and name not in self.kernels:
            known = ", ".join(sorted(self.kernels))
            raise ValueError(f"tube_current.noise_index_kernel must be one of {known}, not {name}")
        return self

    @model_validator(mode="after")
    def _tones_keep_their_order(self) -> ScannerDefinition:
        if self.tone_hu is not None:
            hu, offset = np.array(self.tone_hu).T
            if not ((np.diff(hu) > 0).all() and (np.diff(hu + offset) > 0).all()):
                raise ValueError(
                    "tone_hu must rise in the CT number, and so must CT number plus offset"
                )
        return self

    @model_validator(mode="after")
    def _every_voltage_has_a_dose(self) -> ScannerDefinition:
        missing = set(self.tube.kvp) ^ set(self.protocol.ctdi_vol_mgy_per_100mas)
        if missing:
            raise ValueError(
                "protocol.ctdi_vol_mgy_per_100mas and tube.kvp must name the same voltages; "
                f"only one of them has {', '.join(f'{kvp:g}' for kvp in sorted(missing))}"
            )
        return self

    @model_validator(mode="after")
    def _every_kernel_has_a_folder(self) -> ScannerDefinition:
        folders = Counter(portable_name(name).casefold() for name in self.kernels)
        clashing = [
            name for name in sorted(self.kernels) if folders[portable_name(name).casefold()] > 1
        ]
        if clashing:
            raise ValueError(
                f"the kernels {', '.join(clashing)} would share a folder on a disk that tells no "
                "case apart or forbids some of these characters; give them other names"
            )
        return self

    def record(self) -> dict[str, Any]:
        """All values as plain JSON, without optional sections that this scanner lacks."""
        record: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        if self.geometry.sub_views == 1:
            del record["geometry"]["sub_views"]
        return record

    def spectrum(self, kvp: float, bin_kev: float = 4.0) -> Spectrum:
        """Spectrum of the tube on the central ray, before the bowtie.

        Args:
            kvp: tube voltage.
            bin_kev: width of the energy bins.

        Raises:
            UsageError: if the scanner has no such voltage.
        """
        self._refuse_unknown_voltage(kvp)
        return tube_spectrum(self.tube.anode_deg, kvp, self.tube.filtration_mm, bin_kev)

    def bowtie_mm(self, fan_rad: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Thickness of the bowtie along the rays at these fan angles."""
        return self.bowtie.thickness_mm(fan_rad, self.geometry.source_isocentre_mm)

    def kernel(self, name: str) -> Kernel:
        """Kernel of this name.

        Raises:
            UsageError: if the scanner has no such kernel; it lists the kernels.
        """
        if name not in self.kernels:
            raise UsageError(
                f"{self.name} has no kernel {name!r}; it has {', '.join(sorted(self.kernels))}"
            )
        return self.kernels[name]

    def strength(self, name: str) -> Strength | None:
        """Parameters of a reconstruction, such as `iterative-3`; None for `fbp`.

        Raises:
            UsageError: if the scanner has no such reconstruction; it lists the reconstructions.
        """
        offered = self.reconstruction
        known = (FBP, *(offered.names if offered else ()))
        if name not in known:
            raise UsageError(
                f"{self.name} has no reconstruction {name!r}; it has {', '.join(known)}"
            )
        if name == FBP or offered is None:
            return None
        kind, level = name.split("-")
        strengths = offered.iterative if kind == "iterative" else offered.denoised
        return strengths[int(level) - 1]

    def reconstruction_label(self, name: str) -> str:
        """Label of a reconstruction for DICOM, such as `ADMIRE 3`; empty for `fbp`."""
        if name == FBP or self.reconstruction is None:
            return ""
        kind, level = name.split("-")
        return f"{self.reconstruction.family if kind == 'iterative' else 'Denoised'} {level}"

    def mas_for(self, ctdi_vol_mgy: float, kvp: float) -> float:
        """Tube load of one rotation in mAs that gives this CTDIvol in the 32 cm body phantom.

        Raises:
            UsageError: if the scanner has no such voltage.
        """
        self._refuse_unknown_voltage(kvp)
        return 100 * ctdi_vol_mgy / self.protocol.ctdi_vol_mgy_per_100mas[kvp]

    def _refuse_unknown_voltage(self, kvp: float) -> None:
        if kvp not in self.tube.kvp:
            known = ", ".join(f"{voltage:g}" for voltage in self.tube.kvp)
            raise UsageError(f"{self.name} has no {kvp:g} kVp; it has {known}")


@cache
def definition_names() -> tuple[str, ...]:
    """Names of the scanners that come with the package."""
    files = (resources.files(__package__) / FOLDER).iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def load_definition(name_or_path: str | Path) -> ScannerDefinition:
    """Read the definition of a scanner.

    Args:
        name_or_path: one of `definition_names`, or the path of a TOML file.

    Raises:
        UsageError: if there is no such scanner, or the file is not a valid definition; the message
            names the file and each wrong field.
    """
    name = str(name_or_path)
    if name in definition_names():
        return _bundled_definition(name)
    file = Path(name_or_path)
    if not file.is_file():
        raise UsageError(
            f"no scanner {name!r}: there is no such file, and the scanners that come with "
            f"cvsct are {', '.join(definition_names())}"
        )
    return _read_definition(file)


@cache
def _bundled_definition(name: str) -> ScannerDefinition:
    """Definition of a scanner of the package, which is frozen and read once in a process."""
    return _read_definition(_bundled_file(name))


def _read_definition(file: Traversable) -> ScannerDefinition:
    try:
        return ScannerDefinition.model_validate(_read_values(file))
    except ValidationError as error:
        faults = "; ".join(_fault(dict(item)) for item in error.errors(include_url=False))
        example = resources.files(__package__) / FOLDER / f"{definition_names()[0]}.toml"
        raise UsageError(f"{file}: {faults}; for every field and its unit see {example}") from None


def _bundled_file(name: str) -> Traversable:
    return resources.files(__package__) / FOLDER / f"{name}.toml"


def _read_values(file: Traversable) -> dict[str, Any]:
    """Values of a definition file, with those of its base where it gives none itself."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not a TOML file: {error}") from None
    if "base" not in values:
        return values
    base = values.pop("base")
    without_base = [
        name for name in definition_names() if "base" not in tomllib.loads(_text_of(name))
    ]
    if base not in without_base:
        raise UsageError(
            f"{file}: base is {base!r}; expected one of {', '.join(without_base)}, which are "
            "complete themselves"
        )
    return _merged(tomllib.loads(_text_of(base)), values)


def _text_of(name: str) -> str:
    return _bundled_file(name).read_text(encoding="utf-8")


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values of both, table by table; the changes win, and a changed list replaces the other."""
    merged = dict(base)
    for key, value in changes.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both_tables else value
    return merged


def _fault(item: Mapping[str, object]) -> str:
    """Format an error of pydantic as "field: what was expected, got what"."""
    location = item["loc"]
    field = (
        ".".join(str(part) for part in location) if isinstance(location, tuple) else str(location)
    )
    if item["type"] == "missing":
        return f"{field} is missing"
    if item["type"] == "extra_forbidden":
        return f"{field} is no field of a scanner"
    got = "" if isinstance(item["input"], dict) else f", got {item['input']!r}"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{field}: {message}{got}" if field else message
