"""A scanner as data: what its TOML file says, checked, with units in the names.

Adding a scanner is one file: copy one of `definitions/`, change it, and give its path where a name
is asked for. Each value there carries its source, or the word "chosen".
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

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
"""The energy at which a bowtie's thickness is expressed in water."""


def _known_material(name: str) -> str:
    try:
        return material_named(name).name
    except UsageError as error:
        raise ValueError(str(error)) from None


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
MaterialName = Annotated[str, AfterValidator(_known_material)]


class _Section(BaseModel):
    """A table of the file: nothing may be missing, unknown, infinite or changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GantryGeometry(_Section):
    """Source and detector: an arc of equal channels, centred on the source.

    Args:
        channel_mm: width of one channel along the arc.
        views: readings of each channel in one rotation, a multiple of 4.
        sampling: how the spacing of rays is halved: a detector shifted by a quarter of a channel,
            or a source that jumps sideways.
    """

    source_isocentre_mm: Positive
    source_detector_mm: Positive
    channels: Annotated[int, Field(ge=16)]
    channel_mm: Positive
    views: Annotated[int, Field(ge=16, multiple_of=4)]
    sampling: Literal["quarter-offset", "flying-focal-spot"]

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
        """Angle one channel subtends at the source."""
        return self.channel_mm / self.source_detector_mm

    @property
    def fan_angle_rad(self) -> float:
        """Angle the whole detector subtends at the source."""
        return self.channels * self.channel_rad


class Tube(_Section):
    """A tungsten anode and its filters.

    Args:
        filtration_mm: thickness by material, the whole of it: inherent, flat filters and the
            bowtie's thinnest part where its `minimum_mm` is 0.
        focal_spot_mm: width of the source in the plane of rotation.
        kvp: the voltages there are.
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
    """An energy-integrating scintillator.

    Args:
        efficiency: share of the photons it absorbs that count (septa, light, electronics).
        row_mm: height of one detector row at the isocentre; a thicker slice adds rows.
        electronic_noise_kev: standard deviation of one reading of one row's channel in the dark.
    """

    material: MaterialName
    thickness_mm: Positive
    efficiency: Annotated[float, Field(gt=0, le=1)]
    row_mm: Positive
    electronic_noise_kev: NotNegative

    def absorbed_share(
        self, energies_kev: Float[np.ndarray, " energies"]
    ) -> Float[np.ndarray, " energies"]:
        """Share of the photons that count, each with its whole energy."""
        per_mm = material_named(self.material).attenuation_per_mm(energies_kev)
        return self.efficiency * (1 - np.exp(-self.thickness_mm * per_mm))


class Bowtie(_Section):
    """A filter that thickens to the sides of the fan.

    Args:
        water_radius_mm: radius of the centred water cylinder it is made for.
        strength: 0 is flat; with 1 bowtie and cylinder together attenuate all rays alike (60 keV).
        minimum_mm: thickness on the central ray.
    """

    material: MaterialName
    water_radius_mm: Positive
    strength: Annotated[float, Field(ge=0, le=1)]
    minimum_mm: NotNegative

    def thickness_mm(
        self, fan_rad: Float[np.ndarray, "*shape"], source_isocentre_mm: float
    ) -> Float[np.ndarray, "*shape"]:
        """Thickness along the rays at these fan angles."""
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
    """A reconstruction kernel, as what it makes of the ideal image's spatial frequencies.

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
        """M at these frequencies, which must not be negative; 1 at 0."""
        f = np.append(f_lp_mm, 0.0)
        bumps = [
            np.exp(-(((side * f - self.boost_lp_mm) / self.boost_width_lp_mm) ** 2))
            for side in (1, -1)
        ]
        lift = 1 + self.boost * (bumps[0] + bumps[1])
        values = lift / lift[-1] * np.exp(-np.log(2) * (f / self.cutoff_lp_mm) ** self.exponent)
        return np.reshape(values[:-1], f_lp_mm.shape)


class Protocol(_Section):
    """What the scanner is asked to do.

    Args:
        rotation_s: time of one rotation.
        ctdi_vol_mgy_per_100mas: dose in the 32 cm body phantom by kVp, by which scanners' doses
            are matched.
    """

    thicknesses_mm: Annotated[tuple[Positive, ...], Field(min_length=1)]
    rotation_s: Positive
    ctdi_vol_mgy_per_100mas: dict[Positive, Positive]


class Iterative(_Section):
    """One strength of a family of statistical iterative reconstructions.

    Args:
        blend: share of the iterative image in what is shown; the rest is filtered back-projection.
        balance: spatial frequency at which smoothing and data balance, over the kernel's cutoff.
    """

    blend: Annotated[float, Field(gt=0, le=1)]
    balance: Positive


class Denoised(_Section):
    """One strength of a family of denoisers of the filtered back-projection's image.

    Args:
        blend: share of the denoised image in what is shown.
        threshold: differences up to about this count as noise, in its standard deviations.
    """

    blend: Annotated[float, Field(gt=0, le=1)]
    threshold: Positive


Strength = Iterative | Denoised


class Reconstruction(_Section):
    """What a scanner offers beside filtered back-projection.

    Args:
        family: what the maker calls it.
        edge: differences of neighbours beyond this count as edges, in standard deviations of the
            filtered back-projection's noise.
        dose_exponent: how smoothing grows with the noise variance over that of a reference scan
            (25 cm of water, 100 mAs, 5 mm).
        iterative, denoised: strengths, weakest first; `iterative-1` is the first.
    """

    family: Annotated[str, Field(min_length=1, max_length=14)]
    edge: Positive
    dose_exponent: NotNegative
    iterative: Annotated[tuple[Iterative, ...], Field(max_length=9)] = ()
    denoised: Annotated[tuple[Denoised, ...], Field(max_length=9)] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The reconstructions there are, in the words that a plan uses."""
        return tuple(
            f"{kind}-{level}"
            for kind, strengths in (("iterative", self.iterative), ("denoised", self.denoised))
            for level in range(1, len(strengths) + 1)
        )


class ScannerProfile(_Section):
    """One scanner.

    Args:
        name: how it is called here; manufacturer, model and software are written to DICOM.
        kernels: by the name that goes to DICOM's Convolution Kernel.
        reconstruction: what there is beside filtered back-projection, if anything.
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

    @model_validator(mode="after")
    def _every_voltage_has_a_dose(self) -> ScannerProfile:
        missing = set(self.tube.kvp) ^ set(self.protocol.ctdi_vol_mgy_per_100mas)
        if missing:
            raise ValueError(
                "protocol.ctdi_vol_mgy_per_100mas and tube.kvp must name the same voltages; "
                f"only one of them has {', '.join(f'{kvp:g}' for kvp in sorted(missing))}"
            )
        return self

    @model_validator(mode="after")
    def _every_kernel_has_a_folder(self) -> ScannerProfile:
        folders = Counter(portable_name(name).casefold() for name in self.kernels)
        same = [
            name for name in sorted(self.kernels) if folders[portable_name(name).casefold()] > 1
        ]
        if same:
            raise ValueError(
                f"the kernels {', '.join(same)} would share a folder on a disk that tells no case "
                "apart or forbids some of these characters; give them other names"
            )
        return self

    def spectrum(self, kvp: float, bin_kev: float = 4.0) -> Spectrum:
        """The tube's spectrum on the central ray, before the bowtie.

        Raises:
            UsageError: if the scanner has no such voltage.
        """
        self._refuse_unknown_voltage(kvp)
        return tube_spectrum(self.tube.anode_deg, kvp, self.tube.filtration_mm, bin_kev)

    def bowtie_mm(self, fan_rad: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Thickness of the bowtie along the rays at these fan angles."""
        return self.bowtie.thickness_mm(fan_rad, self.geometry.source_isocentre_mm)

    def kernel(self, name: str) -> Kernel:
        """One of the kernels.

        Raises:
            UsageError: if there is none of that name, listing those there are.
        """
        if name not in self.kernels:
            raise UsageError(
                f"{self.name} has no kernel {name!r}; it has {', '.join(sorted(self.kernels))}"
            )
        return self.kernels[name]

    def strength(self, name: str) -> Strength | None:
        """Parameters of a reconstruction, such as `iterative-3`; None for `fbp`.

        Raises:
            UsageError: if there is none of that name, listing those there are.
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

    def told_reconstruction(self, name: str) -> str:
        """What DICOM says of a reconstruction: `ADMIRE 3`; nothing of filtered back-projection."""
        if name == FBP or self.reconstruction is None:
            return ""
        kind, level = name.split("-")
        return f"{self.reconstruction.family if kind == 'iterative' else 'Denoised'} {level}"

    def mas_for(self, ctdi_vol_mgy: float, kvp: float) -> float:
        """Tube load of one rotation that gives this dose in the 32 cm body phantom.

        Raises:
            UsageError: if the scanner has no such voltage.
        """
        self._refuse_unknown_voltage(kvp)
        return 100 * ctdi_vol_mgy / self.protocol.ctdi_vol_mgy_per_100mas[kvp]

    def _refuse_unknown_voltage(self, kvp: float) -> None:
        if kvp not in self.tube.kvp:
            known = ", ".join(f"{voltage:g}" for voltage in self.tube.kvp)
            raise UsageError(f"{self.name} has no {kvp:g} kVp; it has {known}")


def profile_names() -> tuple[str, ...]:
    """The scanners that come with the package."""
    files = (resources.files(__package__) / FOLDER).iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def load_profile(name_or_path: str | Path) -> ScannerProfile:
    """Read a scanner: one of `profile_names`, or a TOML file of the user's.

    Raises:
        UsageError: if there is none, or it is not right; names the file and each wrong field.
    """
    name = str(name_or_path)
    file = resources.files(__package__) / FOLDER / f"{name}.toml"
    if name not in profile_names():
        file = Path(name_or_path)
        if not file.is_file():
            raise UsageError(
                f"no scanner {name!r}: there is no such file, and the scanners that come with "
                f"cvsct are {', '.join(profile_names())}"
            )
    try:
        return ScannerProfile.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not a TOML file: {error}") from None
    except ValidationError as error:
        faults = "; ".join(_fault(dict(item)) for item in error.errors(include_url=False))
        example = resources.files(__package__) / FOLDER / f"{profile_names()[0]}.toml"
        raise UsageError(f"{file}: {faults}; for every field and its unit see {example}") from None


def _fault(item: Mapping[str, object]) -> str:
    """One of pydantic's findings as "field: what was expected, got what"."""
    place = item["loc"]
    field = ".".join(str(part) for part in place) if isinstance(place, tuple) else str(place)
    if item["type"] == "missing":
        return f"{field} is missing"
    if item["type"] == "extra_forbidden":
        return f"{field} is no field of a scanner"
    got = "" if isinstance(item["input"], dict) else f", got {item['input']!r}"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{field}: {message}{got}" if field else message
