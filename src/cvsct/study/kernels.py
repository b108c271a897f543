"""Class of a convolution kernel by its maker's name: soft tissue, or lung and bone."""

from __future__ import annotations

import re
from typing import Literal

from cvsct.guard.input_check import vendor

KernelClass = Literal["soft", "sharp", ""]
"""`soft` for soft tissue, `sharp` for lung and bone, empty where the name does not tell."""

SIEMENS_SHARP_FROM = 50
"""Number in a Siemens kernel's name from which it is made for lung or bone (B50, Bl57, Br64)."""
CANON_SHARP = range(30, 40), range(50, 60), range(80, 90)
"""Numbers of Canon's FC kernels for bone, lung and high resolution."""

_GE_SOFT = ("SOFT", "STANDARD", "STND", "CHST", "CHEST", "DETAIL")
_GE_SHARP = ("LUNG", "BONE", "EDGE", "ULTRA", "HD LUNG")
_PHILIPS_SHARP = ("D", "YA", "YB", "YC", "YD", "L", "E", "F")


def kernel_class(manufacturer: str, kernel: str) -> KernelClass:
    """Class of a kernel, by the tables of the makers' user guides.

    Example:
        >>> kernel_class("SIEMENS", "Br40"), kernel_class("GE MEDICAL SYSTEMS", "BONEPLUS")
        ('soft', 'sharp')
    """
    name = kernel.strip().upper()
    maker = vendor(manufacturer)
    number = re.search(r"\d+", name)
    if maker == "siemens" and number:
        lung = name.startswith("BL")
        return "sharp" if lung or int(number[0]) >= SIEMENS_SHARP_FROM else "soft"
    if maker in ("ge", "general") and name:
        if name.startswith(_GE_SHARP):
            return "sharp"
        return "soft" if name.startswith(_GE_SOFT) else ""
    if maker == "philips" and name:
        return "sharp" if name in _PHILIPS_SHARP else "soft"
    if maker in ("canon", "toshiba") and name.startswith("FC") and number:
        return "sharp" if any(int(number[0]) in sharp for sharp in CANON_SHARP) else "soft"
    return ""
