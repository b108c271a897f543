"""Earlier translated images, shown to a discriminator again so that it does not forget them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "n 1 h w"]


class ImagePool:
    """Up to `size` translated images (Shrivastava et al. 2017, section 2.3; CycleGAN has 50)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, fresh: Images, rng: np.random.Generator) -> Images:
        """Half of the images are swapped for stored ones once the pool is full."""
        if self.size == 0:
            return fresh
        given = []
        for image in fresh:
            if len(self.images) < self.size:
                self.images.append(image)
                given.append(image)
            elif rng.random() < 0.5:
                index = int(rng.integers(self.size))
                given.append(self.images[index])
                self.images[index] = image
            else:
                given.append(image)
        return torch.stack(given)
