"""Parameters of a feature extraction: an ordinary PyRadiomics parameter file, or the default one.

A parameter file (YAML or JSON) has the mappings `setting`, `imageType` and `featureClass`, which
are documented in PyRadiomics' manual under "Customizing the Extraction".
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cvsct.core.errors import UsageError, one_line
from cvsct.core.text import did_you_mean
from cvsct.evaluation.extras import load_extra
from cvsct.evaluation.features.ibsi import FILTERED_BINS, Binning, FixedBinSize

BINNINGS = ("ibsi", "pyradiomics")
DIMENSIONS = (3, 2)

BIN_WIDTH_HU = 25
CLASSES = ("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm")
"""Feature classes of the default parameters, besides shape."""

_TOP = ("setting", "imageType", "featureClass", "voxelSetting")


@dataclass(frozen=True)
class Parameters:
    """What determines the features of a region.

    Args:
        setting: PyRadiomics' settings, as the mapping `setting` of a parameter file.
        image_types: filters with their own settings (`imageType`).
        feature_classes: feature classes with the names of their features (`featureClass`); an
            empty list or None stands for all.
        binning: `pyradiomics`, or `ibsi` for IBSI's fixed bin size.
        dimensions: 3 for whole regions, 2 for the slice in which a region is largest.
    """

    setting: Mapping[str, Any]
    image_types: Mapping[str, Mapping[str, Any]]
    feature_classes: Mapping[str, list[str] | None]
    binning: Binning
    dimensions: int = 3

    def to_yaml(self) -> str:
        """The parameters as a PyRadiomics parameter file; comments hold what it has no words for.

        `sha256` is the hash of these bytes.
        """
        library = f"PyRadiomics {load_extra('radiomics').__version__.lstrip('v')}"
        text = io.StringIO()
        text.write(f"# {library}, binning {self.binning}, {self.dimensions}-D regions\n")
        if self.binning == "ibsi":
            text.write("# unfiltered images: bins of binWidth from the low end of resegmentRange\n")
            text.write(f"# filtered images: {FILTERED_BINS} bins\n")
        yaml = load_extra("ruamel.yaml").YAML(typ="safe", pure=True)
        yaml.default_flow_style = False
        yaml.sort_base_mapping_type_on_output = False
        contents = {
            "setting": dict(self.setting),
            "imageType": {name: dict(own) for name, own in self.image_types.items()},
            "featureClass": dict(self.feature_classes),
        }
        yaml.dump({key: value for key, value in contents.items() if value}, text)
        return text.getvalue()

    @property
    def sha256(self) -> str:
        """SHA-256 of `to_yaml`, which is what `sha256sum settings.yaml` prints."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()


def default_parameters(binning: Binning = "ibsi", dimensions: int = 3) -> Parameters:
    """Parameters without a parameter file: shape and six classes, unfiltered, bins of 25 HU."""
    two_d = {"force2D": True, "force2Ddimension": 0} if dimensions == 2 else {}
    shape = "shape2D" if dimensions == 2 else "shape"
    return Parameters(
        {"binWidth": BIN_WIDTH_HU, **two_d},
        {"Original": {}},
        dict.fromkeys((shape, *CLASSES)),
        binning,
        dimensions,
    )


def read_parameters(
    path: Path, binning: Binning = "pyradiomics", dimensions: int = 3
) -> Parameters:
    """Read a PyRadiomics parameter file.

    Raises:
        UsageError: if it cannot be read or PyRadiomics does not accept it; the line is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(
            f"{path.name}: cannot be read ({reason}); give a PyRadiomics parameter file (YAML)"
        ) from None
    content = _parsed(path.name, text)
    lines = _lines(text)
    _refuse_unknown(path.name, content, lines)
    _validate(path.name, content, lines)
    extractor = extractor_of(content)
    setting = dict(content.get("setting") or {}) | dict(content.get("voxelSetting") or {})
    if dimensions == 2:
        setting |= {"force2D": True, "force2Ddimension": 0}
    parameters = Parameters(
        setting,
        {name: own or {} for name, own in extractor.enabledImagetypes.items()},
        {name: features or None for name, features in extractor.enabledFeatures.items()},
        binning,
        dimensions,
    )
    return discretization(parameters)


def extractor_of(content: Mapping[str, Any]) -> Any:
    """PyRadiomics' extractor for the contents of a valid parameter file, without its log."""
    logging.getLogger("radiomics").setLevel(logging.CRITICAL + 10)
    extractor_type = load_extra("radiomics.featureextractor").RadiomicsFeatureExtractor
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its schema library loads modules in a deprecated way
        return extractor_type(dict(content))


def discretization(parameters: Parameters) -> Parameters:
    """The parameters with the settings that their binning needs.

    IBSI's fixed bin size begins at the lower end of a re-segmentation range in HU: that of the
    parameter file, or -1000 to 900 HU.

    Raises:
        UsageError: if other settings rule that out.
    """
    if parameters.binning == "pyradiomics":
        return parameters
    setting = dict(parameters.setting)
    odd = [
        name
        for name, given in {
            "binCount": setting.get("binCount") is not None,
            "normalize": bool(setting.get("normalize")),
            "resegmentMode": setting.get("resegmentMode", "absolute") != "absolute",
            "resegmentRange": len(setting.get("resegmentRange") or (0, 0)) != 2,
        }.items()
        if given
    ]
    if odd:
        raise UsageError(
            f"--binning ibsi has bins of one width from a lower end in HU, which the setting "
            f"{odd[0]} rules out; remove it, or give --binning pyradiomics"
        )
    default = FixedBinSize()
    low, high = setting.get("resegmentRange") or (default.low_hu, default.high_hu)
    setting |= {
        "binWidth": setting.get("binWidth", BIN_WIDTH_HU),
        "resegmentRange": [float(low), float(high)],
        "resegmentMode": "absolute",
    }
    return replace(parameters, setting=setting)


def parameters_for(settings: Path | None, binning: Binning | None, dimensions: int) -> Parameters:
    """The parameters of a run: a file's, or the default ones.

    Args:
        settings: a PyRadiomics parameter file, or None.
        binning: None for `pyradiomics` with a file and `ibsi` without one.
        dimensions: 3 or 2.

    Raises:
        UsageError: if the file, the binning or the dimensions are not valid.
    """
    if binning is not None and binning not in BINNINGS:
        raise UsageError(f"no binning {binning!r}; choose ibsi or pyradiomics")
    if dimensions not in DIMENSIONS:
        raise UsageError(f"--dimensions {dimensions}: regions have 3 dimensions or 2")
    if settings is None:
        return discretization(default_parameters(binning or "ibsi", dimensions))
    return read_parameters(settings, binning or "pyradiomics", dimensions)


def _parsed(name: str, text: str) -> dict[str, Any]:
    yaml = load_extra("ruamel.yaml")
    try:
        content = yaml.YAML(typ="safe", pure=True).load(text)
    except yaml.error.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise UsageError(
            f"{name}{line}: not valid YAML ({one_line(str(error.problem or error.context))}); "
            "correct it there"
        ) from None
    except yaml.error.YAMLError as error:
        raise UsageError(f"{name}: not valid YAML ({one_line(str(error))[:120]})") from None
    if not isinstance(content, dict) or not content:
        raise UsageError(
            f"{name} line 1: no PyRadiomics parameters here, expected the mappings setting, "
            "imageType and featureClass"
        )
    return content


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Number of the line of each key, by the path of keys to it."""
    lines: dict[tuple[str, ...], int] = {}

    def visit(node: Any, path: tuple[str, ...]) -> None:
        if not isinstance(node, Mapping):
            return
        places: Any = node
        for key, child in node.items():
            lines[*path, str(key)] = places.lc.data[key][0] + 1
            visit(child, (*path, str(key)))

    visit(load_extra("ruamel.yaml").YAML(typ="rt").load(text), ())
    return lines


def _refuse_unknown(
    name: str, content: Mapping[str, Any], lines: Mapping[tuple[str, ...], int]
) -> None:
    """Refuse keys that PyRadiomics would silently ignore.

    Raises:
        UsageError: for the first of them.
    """
    radiomics = load_extra("radiomics")
    schema_file, _ = radiomics.getParameterValidationFiles()
    safe_yaml = load_extra("ruamel.yaml").YAML(typ="safe", pure=True)
    schema = safe_yaml.load(Path(schema_file).read_text(encoding="utf-8"))["mapping"]
    known: dict[tuple[str, ...], list[str]] = {
        (): list(_TOP),
        ("setting",): list(schema["setting"]["mapping"]),
        ("voxelSetting",): list(schema["voxelSetting"]["mapping"]),
        ("imageType",): list(radiomics.getImageTypes()),
        ("featureClass",): list(radiomics.getFeatureClasses()),
    }
    for path, names in known.items():
        mapping = content if not path else content.get(path[0])
        for key in mapping if isinstance(mapping, Mapping) else ():
            if str(key) not in names:
                at = lines.get((*path, str(key)), 1)
                what = f"{path[0]} {str(key)!r}" if path else f"part {str(key)!r}"
                raise UsageError(
                    f"{name} line {at}: PyRadiomics has no {what}; "
                    f"{did_you_mean(str(key), names)}choose from {', '.join(sorted(names))}"
                )


def _validate(name: str, content: Mapping[str, Any], lines: Mapping[tuple[str, ...], int]) -> None:
    """Check the values by PyRadiomics' own schema.

    Raises:
        UsageError: for the first value that is not valid.
    """
    radiomics = load_extra("radiomics")
    load_extra("pykwalify.core").log.disabled = True  # its errors are told below
    schema_file, schema_functions = radiomics.getParameterValidationFiles()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            core = load_extra("pykwalify.core").Core(
                source_data=content, schema_files=[schema_file], extensions=[schema_functions]
            )
            core.validate(raise_exception=False)
    except (ValueError, TypeError) as error:  # of PyRadiomics' functions for its schema
        message = one_line(str(error))
        said = message.casefold()
        named = [
            (len(path[-1]), line) for path, line in lines.items() if path[-1].casefold() in said
        ]
        at = max(named, default=(0, 1))[1]
        raise UsageError(f"{name} line {at}: {message}") from None
    for message in core.validation_errors or ():
        found = re.search(r"[Pp]ath: '([^']*)'", message)
        path = tuple(found[1].strip("/").split("/")) if found else ()
        while path and path not in lines:
            path = path[:-1]
        said = re.sub(r"\.? *(Value )?[Pp]ath: '[^']*'", "", one_line(message)).rstrip(". ")
        where = f" for {'.'.join(path)}" if path else ""
        raise UsageError(f"{name} line {lines.get(path, 1)}: {said}{where}; correct it there")
