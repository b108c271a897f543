# # Two scanners to a report
#
# This tutorial simulates two scanners, learns a model from different patients on each, harmonizes a scan of a new body,
# and judges the result. It runs in about a minute on one core, because everything is tiny: two bodies a side, three
# slices each, the middle 13 cm of the body. [Get started](../get-started.md) does the same in full.
#
# ## Simulate

import cvsct

cvsct.simulate("scans", scale="tiny", parts=["train", "test", "repeat"], fov_mm=128.0, workers=1)
GE, SIEMENS = "ge-revolution-evo", "siemens-somatom-force"

# ## Look before you learn
#
# What is there, by the headers? A training should see one protocol. Here each side has scans of two tube voltages.

for series in cvsct.find_series(f"scans/train/{GE}"):
    volume = cvsct.read_series(series)
    print(volume.acquisition, volume.shape)

# The scans at 80 kVp are noisier, and the scan that we want to harmonize is of 120 kVp. So we leave them out.

import shutil
from pathlib import Path

for folder in Path("scans/train").glob("*/*120kVp*"):
    shutil.copytree(folder, Path("chosen") / folder.parent.name / folder.name)

# ## Train
#
# `spectrum` compares the texture of both sides in patches of 40 mm. Our images are small, so we take smaller ones.

model = cvsct.train(
    "spectrum", f"chosen/{GE}", f"chosen/{SIEMENS}", "model", settings={"patch_mm": 30}
)
print(model.source, "->", model.target)

# ## Harmonize
#
# In memory, and written as a derived DICOM series. The guard tells whether the scan is one of those that the model
# knows, and flags slices that changed too much.

before = cvsct.read_series(f"scans/test/{GE}")
harmonized = model.harmonize(before)
print(harmonized.input_check.kind, "-", harmonized.n_flagged, "slices flagged")
cvsct.write_derived(harmonized, "harmonized")

# ## Judge
#
# The target is the same body on the other scanner. The retest is that scan once more, with other noise: the best that
# any method can reach.

found = cvsct.evaluate(
    "harmonized", f"scans/test/{SIEMENS}", source=f"scans/test/{GE}",
    retest=f"scans/repeat/{SIEMENS}", rois=12, workers=1, out="report",
)  # fmt: skip
print(found.summary())
print(found.scorecard.headline)

# Open `report/report.html`. Concordance of the features rose, and yet the scorecard says no: the noise has another grain
# than the target's. Six slices a side are little to learn from, and the scorecard is there to say so. With eight slices
# of each body the same steps reach .88 ([Get started](../get-started.md)), with eight bodies a side
# [.90](../results.md#two-scanners-of-two-vendors); both are other bodies, in full.
