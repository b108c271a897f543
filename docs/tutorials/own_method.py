# # A method of your own in 40 lines
#
# A method is three functions: one for its settings, one that learns a model of the scans of two scanners, one that
# makes of a model what maps a volume. `cvsct` does the rest: it reads scans, calibrates the guard, writes the model and
# derived images, and measures the result. Here the method is the simplest one that does something to texture: a blur,
# just wide enough to bring the noise of a sharp kernel to that of a soft one.
#
# ## The method

import numpy as np
from scipy.ndimage import gaussian_filter

from cvsct.core.masks import body
from cvsct.core.settings import Settings
from cvsct.methods.base import bundle_weights, make_bundle, require_scans
from cvsct.methods.registry import METHODS, Method
from cvsct.methods.settings import read_settings
from cvsct.methods.volume_mapping import VolumeMapping
from cvsct.model.bundle import Domain


class BlurSettings(Settings):
    """Settings of the blur."""

    largest_mm: float = 2.0
    """Widest blur that is tried, a standard deviation."""


def blurred(volume, sigma_mm):
    sigma_px = sigma_mm / volume.pixel_mm
    return gaussian_filter(volume.hu, (0, sigma_px, sigma_px)).astype(np.float32)


def noise_hu(volume, sigma_mm=0.0):
    hu = blurred(volume, sigma_mm)
    return np.median(np.abs(hu - gaussian_filter(hu, (0, 3, 3)))[body(volume.hu)])


def train_blur(source, target, request):
    settings = read_settings(BlurSettings, request.settings)
    require_scans("source", source)
    require_scans("target", target)
    wanted = np.mean([noise_hu(volume) for volume in target])
    widths = np.linspace(0, settings.largest_mm, 41)
    levels = [np.mean([noise_hu(volume, mm) for volume in source]) for mm in widths]
    sigma_mm = widths[np.argmin(np.abs(np.array(levels) - wanted))]
    weights = {"sigma_mm": np.array([sigma_mm], np.float32)}
    told = {"sigma_mm": float(sigma_mm)}
    return make_bundle(Domain.of(source), Domain.of(target), request, settings, weights, told)


def load_blur(bundle, direction, options):
    (sigma_mm,) = bundle_weights(bundle, "sigma_mm")
    return VolumeMapping(lambda volume: blurred(volume, float(sigma_mm[0])))


METHODS["blur"] = Method(
    name="blur",
    kind="classical",
    summary="a Gaussian blur that brings noise to the target's level",
    configure=lambda preset, given: read_settings(BlurSettings, given),
    train=train_blur,
    load=load_blur,
    reversible=False,
)

# From here on `blur` is a method as any other in this program. To have it in the command line too, and in its contract
# tests, it becomes a file of the package: [Add a method](../how-to/add-a-method.md), where the types are as well
# (`Trainer` and `Loader` of `cvsct.methods.base` are protocols: any function with these arguments fits).
#
# ## Scans to try it on
#
# Four patients on a sharp and four others on a soft kernel, to learn from. A ninth is scanned with both, and once more
# with the soft one.

from tiny_scans import TinyScanner, write_scan

SHARP = TinyScanner("SIEMENS", "SOMATOM Force", "Bl57", blur_px=0.2, noise_hu=55)
SOFT = TinyScanner("SIEMENS", "SOMATOM Force", "Br40", blur_px=0.8, noise_hu=24)
for patient in range(4):
    write_scan(f"train/sharp/P{patient}.nii.gz", SHARP, patient)
    write_scan(f"train/soft/P{patient + 4}.nii.gz", SOFT, patient + 4)
write_scan("test/sharp.nii.gz", SHARP, 8)
write_scan("test/soft.nii.gz", SOFT, 8)
write_scan("test/again.nii.gz", SOFT, 8, repeat=1)

# ## Train, harmonize, compare
#
# The same lines for the new method and for `spectrum`. The retest is how far any method can come.

import cvsct

source, target, again = (cvsct.read_series(f"test/{n}.nii.gz") for n in ("sharp", "soft", "again"))
for method in ("blur", "spectrum"):
    model = cvsct.train(method, "train/sharp", "train/soft", f"model_{method}")
    harmonized = model.harmonize(source).volume
    found = cvsct.evaluate(harmonized, target, source=source, retest=again, rois=12, workers=1)
    print(f"{method}: {found.summary()}")
print(f"retest: {found.retest.across.mean.ccc:.2f}, {found.retest.quality.psnr_db.mean:.1f} dB")

# A blur reaches the level of the noise. In this little world, where a scanner *is* a blur, that nearly suffices. On
# scans, noise and structure differ each in their own way: give `evaluate` a folder, `out="report"`, and compare noise
# power spectra and edges. [One gain or two](../concepts/gains.md) tells what a better method does.
