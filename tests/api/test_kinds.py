"""Arguments of the wrong kind are refused in words by every public function.

Type checks of the tests would refuse them first, so the calls run in a process without these.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cvsct.core.errors import UsageError
from cvsct.core.kinds import kind_of, refuse_other_kinds_in, texts

CALLS = {
    "find_series(None)": "path: None, expected a path",
    "find_series(volume)": "path: a CTVolume, expected a path",
    "read_series(volume)": "source: a CTVolume, expected a path (text or pathlib.Path), or",
    "CTVolume.from_array('scan.nii', (5.0, 1.0, 1.0))": "hu: the text 'scan.nii', expected an",
    "CTVolume.from_array(volume.hu, 5.0)": "spacing_mm: the float 5.0, expected three lengths",
    "volume.with_hu('scan')": "hu: the text 'scan', expected an array",
    "volume.select(2)": "slices: the int 2, expected a slice object",
    "write_derived(volume, 'out')": "harmonized: a CTVolume, expected the result of Model",
    "write_derived(harmonized, None)": "folder: None, expected a path",
    "resample_series(volume, 'out', 5.0)": "source: a CTVolume, expected a path",
    "resample_series('scans', 'out', '5')": "thickness_mm='5': must be a number",
    "train(None, 'a', 'b', 'out')": "method: None, expected a name of list_methods",
    "train('spectrum', [volume], 'b', 'out')": "source: a list, expected a path",
    "train('spectrum', 'a', 'b', None)": "out: None, expected a path",
    "load_model(None)": "path_or_name: None, expected a path (text or pathlib.Path); or a name",
    "harmonize(volume, 'out', model='m')": "a volume in memory goes to Model.harmonize",
    "harmonize('scans', 'out', model=None)": "model: None, expected a Model, a path",
    "model.harmonize('scans')": "volume: the text 'scans', expected a CTVolume; read one series",
    "model.harmonize(None)": "volume: None, expected a CTVolume",
    "model.harmonize(harmonized)": "volume: harmonized already",
    "model.uncertainty(Path('scans'))": "volume: the path scans, expected a CTVolume",
    "fit_profile(volume)": "scans: a CTVolume, expected a path",
    "load_profile(3)": "profile: the int 3, expected a path",
    "merge_profiles([volume, volume])": "profiles 1: a CTVolume, expected a ScannerProfile",
    "compare_profile(None, 'scans')": "profile: None, expected a ScannerProfile",
    "evaluate('scans', None)": "target: None, expected a path of scans",
    "evaluate(['a', 'b'], volume)": "harmonized 1: the text 'a', expected a path of scans",
    "evaluate([], volume)": "harmonized: an empty list",
    "evaluate(volume, volume, masks=3)": "masks: the int 3, expected a path",
    "extract_features(None)": "scans: None, expected a path, a CTVolume or HarmonizedVolume",
    "extract_features([volume, 3])": "scans 2: the int 3, expected a path",
    "evaluate(volume, volume, nodules=3)": "nodules: the int 3, expected a path",
    "evaluate(volume, volume, out=volume)": "out: a CTVolume, expected a path",
    "extract_features(volume, settings=3)": "settings: the int 3, expected a path",
    "extract_features(volume, label_names=['1=x'])": "label_names: a list, expected names",
    "merge_profiles([], 3)": "out: the int 3, expected a path",
    "plan_study('scans', 'out', patients=frame)": "patients: a DataFrame, expected a path",
    "plan_study('scans', 'out', rules=3)": "rules: the int 3, expected settings by name",
    "extract_features(volume, volume)": "masks: a CTVolume, expected a path",
    "harmonize_features('t.csv')": "table: the text 't.csv', expected a FeatureTable or a pandas",
    "evaluate_groups(None)": "table: None, expected a FeatureTable",
    "evaluate_groups(frame, patients='p.csv')": "patients: the text 'p.csv', expected",
    "signal_kept(3, 'x', train='a', test='b')": "table: the int 3, expected a FeatureTable",
    "plan_study(volume, 'out')": "scans: a CTVolume, expected a path",
    "plan_study('scans', 'out', masks=3)": "masks: the int 3, expected a path",
    "run_study(None)": "study: None, expected a path (text or pathlib.Path); or the StudyPlan",
    "report_study(3)": "study: the int 3, expected a path",
    "simulate(None)": "out: None, expected a path",
    "simulate('out', parts='tset')": "no part 'tset'",
    "simulate('out', seed='1')": "seed='1': must be a number",
    "benchmark(volume, 'input', 'out')": "data: a CTVolume, expected a path",
    "FeatureTable((), ()).write(None)": "folder: None, expected a path",
}
"""Call of a public function, and what its refusal says."""

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
import pandas
import cvsct
from cvsct import *
from cvsct.api.model import HarmonizedVolume
from cvsct.io.dicom.derive import Derivation
volume = CTVolume.from_array(np.zeros((3, 32, 32)), (5.0, 1.0, 1.0))
harmonized = HarmonizedVolume(volume, volume, None, (), Derivation("m", "t", "n", "1", "a", "b"))
model = cvsct.load_model(cvsct.list_models()[0])
frame = pandas.DataFrame({"patient": []})
told = {}
for call in json.load(sys.stdin):
    try:
        eval(call)
    except Exception as error:
        told[call] = [type(error).__name__, str(error)]
print(json.dumps(told))
"""


def test_every_public_function_refuses_arguments_of_the_wrong_kind(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(list(CALLS)), cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    for call, words in CALLS.items():
        kind, message = told[call]
        assert (kind, words in message) == ("UsageError", True), (call, message)
        assert "\n" not in message
    assert not list(tmp_path.iterdir())


def test_a_value_is_named_and_one_text_is_not_its_letters() -> None:
    assert kind_of(np.zeros(3)) == "an ndarray"
    assert kind_of("x" * 99).endswith("xxx...")
    assert texts("GTV*") == ("GTV*",)
    assert texts(["a", "b"]) == ("a", "b")
    assert refuse_other_kinds_in(str, "a text", "one", "names") == ["one"]
    with pytest.raises(UsageError, match="names 2: the int 3, expected a text"):
        refuse_other_kinds_in(str, "a text", ["one", 3], "names")
