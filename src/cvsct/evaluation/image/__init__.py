"""Image quality and physics: noise, sharpness, alignment, CT numbers."""
