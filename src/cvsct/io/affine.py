"""Comparison of frames of reference: whether a mask was drawn in that of a volume."""

from __future__ import annotations

from cvsct.core.errors import GeometryError
from cvsct.core.volume import CTVolume


def is_other_frame(frame: str, volume: CTVolume) -> bool:
    """Whether a frame of reference and the volume's are both known and differ."""
    ours = volume.geometry.frame_of_reference
    return bool(frame and ours and frame != ours)


def refuse_other_frame(name: str, frame: str, volume: CTVolume) -> None:
    """Refuse what was drawn in another frame of reference.

    Raises:
        GeometryError: if both name one and they differ.
    """
    if is_other_frame(frame, volume):
        raise GeometryError(
            f"{name}: drawn in another frame of reference than the image's, so positions do not "
            "compare; give the mask of this examination"
        )
