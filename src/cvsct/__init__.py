"""Rewrite CT scans of one scanner as if another scanner had made them. For research use only.

The names in `__all__` are the public interface. Each is imported when it is first used, so that
importing the package itself is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cvsct.api.evaluate import evaluate
    from cvsct.api.features import extract_features
    from cvsct.api.harmonize import AllSeriesFailedError, HarmonizeResult, harmonize
    from cvsct.api.model import HarmonizedVolume, Model, list_models, load_model
    from cvsct.api.profile import (
        ScannerProfile,
        compare_profile,
        fit_profile,
        load_profile,
        merge_profiles,
    )
    from cvsct.api.resample import resample_series
    from cvsct.api.scans import find_series, read_series, write_derived
    from cvsct.api.simulate import simulate
    from cvsct.api.train import train
    from cvsct.benchmarking.run import benchmark
    from cvsct.core.errors import CvsctError, GuardError
    from cvsct.core.volume import CTVolume
    from cvsct.evaluation.combat.harmonize_features import harmonize_features
    from cvsct.evaluation.features.patient_table import FeatureTable
    from cvsct.evaluation.groups.evaluate_groups import evaluate_groups
    from cvsct.evaluation.groups.signal_kept import signal_kept
    from cvsct.methods.registry import list_methods
    from cvsct.study.make_plan import plan_study
    from cvsct.study.plan import StudyPlan
    from cvsct.study.report import report_study
    from cvsct.study.run import run_study

_MODULES = {
    "AllSeriesFailedError": "api.harmonize",
    "CTVolume": "core.volume",
    "CvsctError": "core.errors",
    "FeatureTable": "evaluation.features.patient_table",
    "GuardError": "core.errors",
    "HarmonizeResult": "api.harmonize",
    "HarmonizedVolume": "api.model",
    "Model": "api.model",
    "ScannerProfile": "api.profile",
    "StudyPlan": "study.plan",
    "benchmark": "benchmarking.run",
    "compare_profile": "api.profile",
    "evaluate": "api.evaluate",
    "evaluate_groups": "evaluation.groups.evaluate_groups",
    "extract_features": "api.features",
    "find_series": "api.scans",
    "fit_profile": "api.profile",
    "harmonize": "api.harmonize",
    "harmonize_features": "evaluation.combat.harmonize_features",
    "list_methods": "methods.registry",
    "list_models": "api.model",
    "load_model": "api.model",
    "load_profile": "api.profile",
    "merge_profiles": "api.profile",
    "plan_study": "study.make_plan",
    "read_series": "api.scans",
    "report_study": "study.report",
    "resample_series": "api.resample",
    "run_study": "study.run",
    "signal_kept": "evaluation.groups.signal_kept",
    "simulate": "api.simulate",
    "train": "api.train",
    "write_derived": "api.scans",
}

__all__ = [
    "AllSeriesFailedError",
    "CTVolume",
    "CvsctError",
    "FeatureTable",
    "GuardError",
    "HarmonizeResult",
    "HarmonizedVolume",
    "Model",
    "ScannerProfile",
    "StudyPlan",
    "benchmark",
    "compare_profile",
    "evaluate",
    "evaluate_groups",
    "extract_features",
    "find_series",
    "fit_profile",
    "harmonize",
    "harmonize_features",
    "list_methods",
    "list_models",
    "load_model",
    "load_profile",
    "merge_profiles",
    "plan_study",
    "read_series",
    "report_study",
    "resample_series",
    "run_study",
    "signal_kept",
    "simulate",
    "train",
    "write_derived",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'cvsct' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cvsct.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__])
