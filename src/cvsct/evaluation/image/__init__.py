"""Image quality and physics: noise, resolution, alignment, CT numbers, nodules."""
