"""Features against figures that others published: IBSI's phantom, and upstream's baselines."""

from __future__ import annotations

import ast
import csv
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from cvsct.evaluation.features.extractor import CLASS_TYPES, feature_values
from cvsct.evaluation.features.radiomics import class_of, feature_names

# The digital phantom of the Image Biomarker Standardisation Initiative (IBSI 1), by A. Zwanenburg,
# "licensed under the Creative Commons Attribution 4.0 International License". 0 is not in the mask.
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ],
    dtype=np.float64,
)
CONSENSUS = {
    # IBSI reference manual, 3-D averaged (GLCM, GLRLM) or 3-D; consensus strong or very strong
    "firstorder_10Percentile": 1, "firstorder_90Percentile": 4, "firstorder_Range": 5,
    "firstorder_InterquartileRange": 3, "firstorder_MeanAbsoluteDeviation": 1.55,
    "firstorder_RobustMeanAbsoluteDeviation": 1.11,
    "glcm_Idmn": 0.898, "glcm_InverseVariance": 0.0604, "glcm_Correlation": 0.157,
    "glcm_Autocorrelation": 5.06, "glcm_ClusterTendency": 7.07, "glcm_ClusterShade": 16.6,
    "glcm_ClusterProminence": 145,
    "glrlm_LongRunEmphasis": 3.06, "glrlm_LowGrayLevelRunEmphasis": 0.603,
    "glrlm_HighGrayLevelRunEmphasis": 9.7, "glrlm_ShortRunLowGrayLevelEmphasis": 0.352,
    "glrlm_ShortRunHighGrayLevelEmphasis": 8.54, "glrlm_LongRunLowGrayLevelEmphasis": 2.39,
    "glrlm_LongRunHighGrayLevelEmphasis": 17.6,
    "glszm_LargeAreaEmphasis": 550, "glszm_LowGrayLevelZoneEmphasis": 0.253,
    "glszm_HighGrayLevelZoneEmphasis": 15.6, "glszm_SmallAreaLowGrayLevelEmphasis": 0.0256,
    "glszm_SmallAreaHighGrayLevelEmphasis": 2.76, "glszm_LargeAreaLowGrayLevelEmphasis": 503,
    "glszm_LargeAreaHighGrayLevelEmphasis": 1490, "glszm_GrayLevelNonUniformity": 1.4,
    "glszm_GrayLevelNonUniformityNormalized": 0.28,
    "ngtdm_Contrast": 0.584, "ngtdm_Busyness": 6.54, "ngtdm_Complexity": 13.5,
    "ngtdm_Strength": 0.763,
    "gldm_SmallDependenceEmphasis": 0.045, "gldm_LargeDependenceEmphasis": 109,
}  # fmt: skip

UPSTREAM = "pyradiomics-bhklab==3.1.4"
CASES = ("brain1", "brain2", "breast1", "lung1", "lung2")


def test_the_ibsi_phantom() -> None:
    mask = PHANTOM > 0
    assert mask.sum() == 74
    values = feature_values(PHANTOM, mask, (2.0, 2.0, 2.0), binWidth=1.0)
    for name, value in CONSENSUS.items():
        assert float(f"{values[name]:.3g}") == pytest.approx(value, rel=1e-9), name


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the library's own sources: its images are not ours to hand on."""
    folder = tmp_path_factory.mktemp("upstream")
    package = UPSTREAM.partition("==")[0]
    command = ["download", "--quiet", "--no-deps", "--no-binary", package, UPSTREAM]
    subprocess.run([sys.executable, "-m", "pip", *command, "--dest", folder], check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(folder, filter="data")
    (data,) = folder.glob("*/data")
    return data


@pytest.mark.registry
@pytest.mark.parametrize("case", CASES)
def test_upstreams_baselines(upstream: Path, case: str) -> None:
    """All 93 features of the five cases without filter or resampling, to 1e-9 (PyRadiomics 2)."""
    image = SimpleITK.ReadImage(upstream / f"{case}_image.nrrd")
    mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(upstream / f"{case}_label.nrrd")) == 1
    inside = np.argwhere(mask)
    box = tuple(map(slice, inside.min(axis=0), inside.max(axis=0) + 1))
    hu = SimpleITK.GetArrayFromImage(image).astype(np.float64)[box]
    compared = 0
    for name in CLASS_TYPES:
        with (upstream / "baseline" / f"baseline_{name}.csv").open() as stream:
            rows = {row["featureName"]: row[case] for row in csv.DictReader(stream)}
        settings = ast.literal_eval(rows["diagnostics_Configuration_Settings"])
        values = feature_values(hu, mask[box], tuple(reversed(image.GetSpacing())), **settings)
        for feature in (f for f in feature_names() if class_of(f) == name):
            assert values[feature] == pytest.approx(float(rows[f"original_{feature}"]), rel=1e-9)
            compared += 1
    assert compared == 93
