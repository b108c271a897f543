"""Features of the regions of a volume by PyRadiomics, as a parameter file asks for them.

The numbers are those of PyRadiomics' extractor. What is the same for all regions of a scan is done
once: normalization, and every filter, whose result depends on the whole image. Regions are cut out
before anything else is computed on them.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from cvsct.core.errors import MissingExtraError, one_line
from cvsct.core.volume import CTVolume
from cvsct.evaluation.extras import load_extra
from cvsct.evaluation.features.cache import FeatureCache, content_key
from cvsct.evaluation.features.ibsi import FILTERED_BINS, Binning, FixedBinSize, with_levels
from cvsct.evaluation.features.parameters import Parameters, extractor_of
from cvsct.evaluation.features.volume_regions import Box, VolumeRegion, slice_mm

_BY_REGION = ("LBP3D",)
"""Filters whose result depends on the region."""

_KEEP_EVERY = 64


@dataclass
class RegionFeatures:
    """Features of one region, or why they could not be measured.

    Args:
        values: values by `filter_class_Feature`; NaN where PyRadiomics gives no finite number.
        error: the reason; empty where there are values.
    """

    values: dict[str, float] = field(default_factory=dict)
    error: str = ""


def measure_regions(
    volume: CTVolume,
    regions: Sequence[VolumeRegion],
    parameters: Parameters,
    cache: FeatureCache | None = None,
) -> list[RegionFeatures]:
    """Measure the features of regions of one volume.

    Args:
        volume: the scan.
        regions: its regions, for `dimensions` 2 within one slice each; one with a `reason` keeps it
            as its error.
        parameters: what is measured.
        cache: cache that is read first and written to; None for none.

    Returns:
        One result per region, in their order.

    Raises:
        MissingExtraError: if PyRadiomics or a library of one of its filters is not installed.
    """
    results = [RegionFeatures(error=region.reason or _too_small(region)) for region in regions]
    todo = [i for i, result in enumerate(results) if not result.error]
    keys = _keys(volume, [regions[i] for i in todo], parameters) if cache else []
    known = cache.get_named(keys) if cache else {}
    key_of = dict(zip(todo, keys, strict=True)) if cache else {}
    for i in todo:
        results[i].values = known.get(key_of.get(i, ""), {})
    new = [i for i in todo if not results[i].values]
    for i, measured in zip(
        new, _measure(volume, [regions[i] for i in new], parameters), strict=True
    ):
        results[i] = measured
    if cache and new:
        cache.put_named({key_of[i]: results[i].values for i in new if not results[i].error})
    return results


def _too_small(region: VolumeRegion) -> str:
    if region.voxels > 1:
        return ""
    return f"region {region.name!r} is one voxel, which has no texture; draw it larger"


def _keys(volume: CTVolume, regions: Sequence[VolumeRegion], parameters: Parameters) -> list[str]:
    """Cache keys of regions: of their own voxels where features depend on nothing else."""
    settings: dict[str, Any] = {"parameters": parameters.to_yaml()}
    if not _is_local(parameters):
        settings["volume"] = hashlib.sha256(np.ascontiguousarray(volume.hu).data).hexdigest()
        settings |= {"shape": list(volume.shape)}
    keys = []
    for region in regions:
        assert region.mask is not None
        place: dict[str, Any] = {} if _is_local(parameters) else {"start": list(region.start)}
        place |= {} if region.with_shape else {"shape_measured": False}
        hu = volume.hu[region.box]
        keys.append(content_key(hu, region.mask, _spacing_mm(volume), settings | place))
    return keys


def _is_local(parameters: Parameters) -> bool:
    """Whether features depend on nothing but the voxels of their region."""
    setting = parameters.setting
    resamples = setting.get("resampledPixelSpacing") is not None
    return set(parameters.image_types) <= {"Original"} and not (
        setting.get("normalize") or resamples or setting.get("preCrop")
    )


def _spacing_mm(volume: CTVolume) -> tuple[float, float, float]:
    return (slice_mm(volume), *volume.geometry.pixel_mm)


@dataclass
class _Prepared:
    """A region cut from its volume, in PyRadiomics' terms.

    Args:
        box: where the cut lies in the image that is filtered; None where the cut is filtered.
        image, mask: the cut, and the mask after re-segmentation.
        bounds: bounding box of the mask.
        result: what is measured.
    """

    box: Box | None
    image: Any
    mask: Any
    bounds: Any
    result: RegionFeatures


def _measure(
    volume: CTVolume, regions: Sequence[VolumeRegion], parameters: Parameters
) -> list[RegionFeatures]:
    if not regions:
        return []
    extractor = _extractor(parameters)
    if _is_local(parameters):
        single_thread()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # 0/0 in degenerate regions gives NaN
        if _is_local(parameters):
            image = _whole_numbers(volume.hu)
            prepared = [_cut(extractor, image, volume, region) for region in regions]
            _measure_each(extractor, prepared)
        elif _cuts_first(extractor):
            whole = _image(_whole_numbers(volume.hu), volume)
            whole = _normalized(extractor, whole)
            prepared = [_resampled(extractor, whole, volume, region) for region in regions]
            _measure_each(extractor, prepared)
        else:
            whole = _normalized(extractor, _image(_whole_numbers(volume.hu), volume))
            array = load_extra("SimpleITK").GetArrayViewFromImage(whole)
            prepared = [_cut(extractor, array, volume, region) for region in regions]
            _measure_filtered(extractor, whole, volume, regions, prepared)
    return [region.result for region in prepared]


def single_thread() -> None:
    """Let SimpleITK use one thread in this process: threads cost more than they save on regions."""
    load_extra("SimpleITK").ProcessObject.SetGlobalDefaultNumberOfThreads(1)


@functools.lru_cache(maxsize=4)
def _extractor_of(text: str, binning: Binning) -> Any:
    """PyRadiomics' extractor for a parameter file's text, with the binning as an attribute."""
    content = load_extra("ruamel.yaml").YAML(typ="safe", pure=True).load(text)
    extractor = extractor_of(content)
    extractor.settings |= {"label": 1, "additionalInfo": False}
    extractor.binning = binning
    return extractor


def _extractor(parameters: Parameters) -> Any:
    return _extractor_of(parameters.to_yaml(), parameters.binning)


def _cuts_first(extractor: Any) -> bool:
    """Whether regions are resampled or cut before they are filtered."""
    settings = extractor.settings
    resamples = settings.get("resampledPixelSpacing") is not None
    return bool((resamples and settings.get("interpolator")) or settings.get("preCrop"))


def _whole_numbers(hu: Shaped[np.ndarray, "slices rows columns"]) -> Any:
    """HU as 16-bit whole numbers where they are, as files hold them; else as 64-bit fractions.

    PyRadiomics rounds what it resamples to the type of its image.
    """
    stored = hu.astype(np.int16) if np.abs(hu).max(initial=0) < 2**15 else None
    return stored if stored is not None and (stored == hu).all() else hu.astype(np.float64)


def _image(array: Shaped[np.ndarray, "slices rows columns"], volume: CTVolume) -> Any:
    """An image of SimpleITK with the spacing of a volume."""
    image = load_extra("SimpleITK").GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(tuple(reversed(_spacing_mm(volume))))
    return image


def _normalized(extractor: Any, whole: Any) -> Any:
    if not extractor.settings.get("normalize"):
        return whole
    return load_extra("radiomics.imageoperations").normalizeImage(whole, **extractor.settings)


def _cut(
    extractor: Any,
    image: Shaped[np.ndarray, "slices rows columns"],
    volume: CTVolume,
    region: VolumeRegion,
) -> _Prepared:
    """A region with a rim of one voxel, where the image has one."""
    assert region.mask is not None
    z, y, x = (
        slice(max(inner.start - 1, 0), min(inner.stop + 1, size))
        for inner, size in zip(region.box, image.shape, strict=True)
    )
    mask = np.zeros([part.stop - part.start for part in (z, y, x)], dtype=np.uint8)
    inside = tuple(
        slice(inner.start - outer.start, inner.stop - outer.start)
        for inner, outer in zip(region.box, (z, y, x), strict=True)
    )
    mask[inside] = np.asarray(region.mask)
    cut = _image(image[z, y, x], volume)
    return _prepare(extractor, cut, _image(mask, volume), (z, y, x), region.with_shape)


def _resampled(extractor: Any, whole: Any, volume: CTVolume, region: VolumeRegion) -> _Prepared:
    """A region as PyRadiomics cuts it out of its image, resampled where that is asked for."""
    mask = _image(_whole_mask(volume, region), volume)
    try:
        image, mask = extractor.loadImage(
            whole, mask, None, **(extractor.settings | {"normalize": False})
        )
    except (ValueError, RuntimeError) as error:
        return _Prepared(None, None, None, None, RegionFeatures(error=_reason(error)))
    return _prepare(extractor, image, mask, None, region.with_shape)


def _whole_mask(volume: CTVolume, region: VolumeRegion) -> UInt8[np.ndarray, "slices rows columns"]:
    mask = np.zeros(volume.shape, dtype=np.uint8)
    mask[region.box] = np.asarray(region.mask)
    return mask


def _prepare(extractor: Any, image: Any, mask: Any, box: Box | None, with_shape: bool) -> _Prepared:
    """Check a region, re-segment it and measure its shape, as PyRadiomics' `execute` does."""
    operations, settings = load_extra("radiomics.imageoperations"), extractor.settings
    result = RegionFeatures()
    bounds = None
    try:
        bounds, _ = operations.checkMask(image, mask, **settings)
        texture_mask = mask
        if settings.get("resegmentRange") is not None:
            texture_mask = operations.resegmentMask(image, mask, **settings)
            bounds, _ = operations.checkMask(image, texture_mask, **settings)
        shape_mask = texture_mask if settings.get("resegmentShape") else mask
        if with_shape:
            result.values = _floats(extractor.computeShape(image, shape_mask, bounds, **settings))
        mask = texture_mask
    except (ValueError, RuntimeError, IndexError) as error:
        result = RegionFeatures(error=_reason(error))
    return _Prepared(box, image, mask, bounds, result)


def _measure_each(extractor: Any, prepared: Sequence[_Prepared]) -> None:
    """Filter and measure each region's own cut."""
    for region in prepared:
        if region.result.error:
            continue
        try:
            for image, name, settings in _filtered(extractor, region.image, region.mask):
                _texture(extractor, region, image, name, settings)
        except (ValueError, RuntimeError, IndexError) as error:
            region.result = RegionFeatures(error=_reason(error))


def _measure_filtered(
    extractor: Any,
    whole: Any,
    volume: CTVolume,
    regions: Sequence[VolumeRegion],
    prepared: Sequence[_Prepared],
) -> None:
    """Filter the whole image once, and measure each region's cut of it."""
    sitk = load_extra("SimpleITK")
    for image_type in extractor.enabledImagetypes:
        if image_type in _BY_REGION:
            for region, where in zip(prepared, regions, strict=True):
                mask = _image(_whole_mask(volume, where), volume)
                _measure_cuts(extractor, sitk, [region], image_type, whole, mask, volume)
        else:
            _measure_cuts(extractor, sitk, prepared, image_type, whole, None, volume)


def _measure_cuts(
    extractor: Any,
    sitk: Any,
    prepared: Sequence[_Prepared],
    image_type: str,
    whole: Any,
    mask: Any,
    volume: CTVolume,
) -> None:
    try:
        for filtered, name, settings in _filtered(extractor, whole, mask, image_type):
            array = sitk.GetArrayViewFromImage(filtered)
            for region in prepared:
                if region.result.error or region.box is None:
                    continue
                try:
                    cut = _image(array[region.box], volume)
                    _texture(extractor, region, cut, name, settings)
                except (ValueError, RuntimeError, IndexError) as error:
                    region.result = RegionFeatures(error=_reason(error))
    except (ValueError, RuntimeError, IndexError) as error:  # of the filter: no region has values
        for region in prepared:
            if not region.result.error:
                region.result = RegionFeatures(error=f"filter {image_type}: {_reason(error)}")


def _filtered(
    extractor: Any, image: Any, mask: Any, only: str = ""
) -> Iterator[tuple[Any, str, Mapping[str, Any]]]:
    """The filtered images that the parameters ask for, with their names and settings."""
    operations = load_extra("radiomics.imageoperations")
    for image_type, own in extractor.enabledImagetypes.items():
        if only in ("", image_type):
            try:
                yield from getattr(operations, f"get{image_type}Image")(
                    image, mask, **(extractor.settings | dict(own))
                )
            except ImportError as error:
                raise MissingExtraError(
                    f"the filter {image_type} needs {error.name}, which is not installed; "
                    f"install it with: pip install {error.name}"
                ) from None


def _texture(
    extractor: Any, region: _Prepared, image: Any, name: str, settings: Mapping[str, Any]
) -> None:
    """Measure all classes but shape in one filtered image of a region."""
    radiomics = load_extra("radiomics")
    crop = radiomics.imageoperations.cropToTumorMask
    inner_image, inner_mask = crop(image, region.mask, region.bounds)
    fixed_bins = _fixed_bins(extractor.binning, name, settings)
    if fixed_bins is not None:
        sitk = load_extra("SimpleITK")
        inner_image = sitk.Cast(inner_image, sitk.sitkFloat64)
    elif extractor.binning == "ibsi":
        settings = {**settings, "binCount": FILTERED_BINS}
    for class_name, names in extractor.enabledFeatures.items():
        if class_name.startswith("shape"):
            continue
        feature_class = radiomics.getFeatureClasses()[class_name]
        if fixed_bins is not None:
            feature_class = with_levels(feature_class, fixed_bins)
        measured = feature_class(inner_image, inner_mask, **settings)
        for feature in names or ():
            measured.enableFeatureByName(feature)
        values = _floats(measured.execute())
        region.result.values |= {
            f"{name}_{class_name}_{feature}": value for feature, value in values.items()
        }


def _fixed_bins(binning: Binning, name: str, settings: Mapping[str, Any]) -> FixedBinSize | None:
    """IBSI's bins of an unfiltered image; None for a filtered one or PyRadiomics' binning."""
    if binning != "ibsi" or name != "original":
        return None
    low_hu, high_hu = settings["resegmentRange"]
    return FixedBinSize(float(settings["binWidth"]), float(low_hu), float(high_hu))


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    """Plain numbers; NaN for infinity, which no table can hold."""
    numbers = {name: float(value) for name, value in values.items()}
    return {name: value if np.isfinite(value) else np.nan for name, value in numbers.items()}


def _reason(error: Exception) -> str:
    """PyRadiomics' reason as one line."""
    text = str(error.args[0]) if error.args else type(error).__name__
    return f"PyRadiomics: {one_line(text)}"
