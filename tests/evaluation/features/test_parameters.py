"""Parameter files: what is read is what is written, and a wrong line is named."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from radiomics.featureextractor import RadiomicsFeatureExtractor

from cvsct.core.errors import UsageError
from cvsct.evaluation.features.parameters import (
    default_parameters,
    parameters_for,
    read_parameters,
)


def file(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the library of its schema
def test_default_parameters_are_a_file_that_pyradiomics_reads(tmp_path: Path) -> None:
    parameters = default_parameters("pyradiomics")
    path = file(tmp_path, parameters.to_yaml())
    extractor = RadiomicsFeatureExtractor(str(path))
    assert extractor.settings["binWidth"] == 25
    assert set(extractor.enabledFeatures) == {
        "shape", "firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm"
    }  # fmt: skip
    assert read_parameters(path).to_yaml() == parameters.to_yaml()
    assert parameters.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_difference_gives_another_hash(tmp_path: Path) -> None:
    plain = read_parameters(file(tmp_path, "setting:\n  binWidth: 25\n"))
    wider = read_parameters(file(tmp_path, "setting:\n  binWidth: 30\n"))
    flat = read_parameters(file(tmp_path, "setting:\n  binWidth: 25\n"), dimensions=2)
    assert len({plain.sha256, wider.sha256, flat.sha256}) == 3


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("setting:\n  binWidth: 25\n  binWitdh: 3\n", 3, "did you mean 'binWidth'"),
        ("setting:\n  label: 1\nimageType:\n  Original: {}\n  Lag: {}\n", 5, "'Lag'"),
        ("featureClass:\n  shape:\n  glcm: ['Contrasto']\n", 3, "Contrasto"),
        ("setting:\n\n  binWidth: -3\n", 3, "binWidth"),
        ("setting:\n  interpolator: cubic\n", 2, "Interpolator"),
        ("setting: {binWidth: [1,\n  2\nx", 3, "not valid YAML"),
        ("setting:\n\tbinWidth: 3\n", 2, "not valid YAML"),
        ("setting:\n  binWidth: 3\n  binWidth: 4\n", 3, "duplicate"),
        ("settings:\n  binWidth: 3\n", 1, "did you mean 'setting'"),
        ("just words\n", 1, "no PyRadiomics parameters"),
        ("", 1, "no PyRadiomics parameters"),
    ],
)
def test_a_wrong_line_is_named(text: str, line: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"^params\.yaml line {line}: ") as caught:
        read_parameters(file(tmp_path, text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_parameters(path)


def test_a_parameter_file_means_pyradiomics_binning(tmp_path: Path) -> None:
    path = file(tmp_path, "setting:\n  binWidth: 10\n")
    assert parameters_for(path, None, 3).binning == "pyradiomics"
    with pytest.raises(UsageError, match="dimensions"):
        parameters_for(path, None, 4)


def test_ibsi_refuses_what_leaves_no_hu_to_count_from(tmp_path: Path) -> None:
    for setting in ("binCount: 32", "normalize: true", "resegmentRange: [-3, 3]\n"
                    "  resegmentMode: sigma"):  # fmt: skip
        path = file(tmp_path, f"setting:\n  {setting}\n")
        with pytest.raises(UsageError, match="--binning ibsi"):
            parameters_for(path, "ibsi", 3)
    path = file(tmp_path, "setting:\n  binWidth: 10\n  resegmentRange: [-500, 400]\n")
    parameters = parameters_for(path, "ibsi", 3)
    assert parameters.setting["resegmentRange"] == [-500.0, 400.0]
    assert parameters.setting["binWidth"] == 10
    assert parameters.sha256 != parameters_for(path, None, 3).sha256
