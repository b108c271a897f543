"""Convolutions of stride 1 by Winograd's minimal filtering, for training on processors.

Lavin and Gray, CVPR 2016: an image is cut into tiles that overlap by the kernel, the tiles and the
kernel are transformed, multiplied point by point, and transformed back. A tile of 4x4 outputs takes
36 multiplications for a 3x3 kernel and 49 for a 4x4 one, in place of 144 and 256. PyTorch's
processor library has no such algorithm for 4x4 kernels, nor for any on AVX2.

Results differ from those of direct convolutions by rounding alone, which is about five times that
of a direct one in single precision. Without gradients, as models are validated, exported and run,
convolutions are direct.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

TILE = 4
"""Outputs of a tile along each axis."""

POINTS = tuple(Fraction(text) for text in ("0", "1", "-1", "2", "-2", "1/2", "-1/2"))
"""Points at which polynomials are evaluated: small numbers keep the rounding small."""

MIN_CHANNELS = 16
"""Channels in and out below which the transforms cost more than they save."""

Margins = tuple[int, int, int, int]
"""Zeros added left, right, above and below the image, as `torch.nn.functional.pad` takes them."""


class Transforms(NamedTuple):
    """Matrices of one kernel size: `output @ ((kernel @ g) * (input @ d))` convolves `d` by `g`.

    Args:
        input: of a tile of `TILE + k - 1` pixels.
        kernel: of the kernel's `k` weights.
        output: back to `TILE` pixels.
    """

    input: Float[Tensor, "n n"]
    kernel: Float[Tensor, "n k"]
    output: Float[Tensor, "tile n"]


@lru_cache
def transforms(kernel_px: int, dtype: torch.dtype) -> Transforms:
    """Matrices of Toom and Cook for `TILE` outputs, exact before they are rounded to `dtype`.

    Polynomials are evaluated at `TILE + kernel_px - 2` points and at infinity.
    """
    points = POINTS[: TILE + kernel_px - 2]
    infinity = len(points)
    rows_in, rows_kernel = [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        rows_in.append([*_with_roots(others), Fraction(0)])
        rows_kernel.append([point**power / scale for power in range(kernel_px)])
    rows_in.append(_with_roots(points))
    rows_kernel.append([Fraction(int(power == kernel_px - 1)) for power in range(kernel_px)])
    rows_out = [
        [*(point**power for point in points), Fraction(int(power == TILE - 1))]
        for power in range(TILE)
    ]
    assert len(rows_in) == infinity + 1
    return Transforms(*(_matrix(rows, dtype) for rows in (rows_in, rows_kernel, rows_out)))


def _with_roots(roots: tuple[Fraction, ...] | list[Fraction]) -> list[Fraction]:
    """Coefficients, lowest first, of the polynomial with these roots and leading coefficient 1."""
    polynomial = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *polynomial]
        polynomial = [
            high - root * low for high, low in zip(shifted, [*polynomial, Fraction(0)], strict=True)
        ]
    return polynomial


def _matrix(rows: list[list[Fraction]], dtype: torch.dtype) -> Tensor:
    return torch.tensor([[float(value) for value in row] for row in rows], dtype=dtype)


class Conv2d(nn.Conv2d):
    """PyTorch's convolution, which trains by Winograd's algorithm where that is faster.

    That is on a processor, in single or double precision, with enough channels, stride 1 and
    kernels of 3 or 4 pixels a side.
    """

    direct = False
    """Train by direct convolution as well."""

    def forward(self, image: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d y x"]:
        """Convolve with the zero padding given."""
        if self.trains_by_winograd(image):
            rows, columns = (int(margin) for margin in self.padding)
            return self.by_winograd(image, (columns, columns, rows, rows))
        return super().forward(image)

    def trains_by_winograd(self, image: Tensor) -> bool:
        """Whether the algorithm is faster for this image."""
        return bool(
            torch.is_grad_enabled()
            and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
            and (image.requires_grad or self.weight.requires_grad)
            and not self.direct
            and image.device.type == "cpu"
            and image.dtype in (torch.float32, torch.float64)
            and not torch.is_autocast_enabled("cpu")
            and min(self.weight.shape[:2]) >= MIN_CHANNELS
        )

    def by_winograd(
        self, image: Float[Tensor, "n c h w"], margins: Margins
    ) -> Float[Tensor, "n d y x"]:
        """Convolve by the algorithm, with these zeros around the image."""
        assert self.bias is not None
        return convolve(image, self.weight, self.bias, margins)


def train_directly(network: nn.Module) -> None:
    """Let all convolutions of a network train by direct convolution."""
    for module in network.modules():
        if isinstance(module, Conv2d):
            module.direct = True


def convolve(
    image: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "d c k k"],
    bias: Float[Tensor, " d"],
    margins: Margins,
) -> Float[Tensor, "n d y x"]:
    """Pad and convolve, as `functional.conv2d(functional.pad(image, margins), weight, bias)`.

    Args:
        image: in any layout; channels last is fastest, and is the layout of the result.
        weight: square kernels of 3 or 4 pixels.
        bias: added to each channel.
        margins: zeros around the image; together at least `k - 1` along each axis.
    """
    convolved: Tensor = _Convolution.apply(image, weight, bias, margins)  # type: ignore[no-untyped-call]
    return convolved


class _Convolution(torch.autograd.Function):
    """The convolution with its gradients, which are made of the transposed transforms."""

    @staticmethod
    def forward(
        context: Any, image: Tensor, weight: Tensor, bias: Tensor, margins: Margins
    ) -> Tensor:
        matrices = transforms(weight.shape[-1], image.dtype)
        left, right, above, below = margins
        n, _, height, width = image.shape
        overlap = weight.shape[-1] - 1
        out_y, out_x = height + above + below - overlap, width + left + right - overlap
        tiles_y, tiles_x = -(-out_y // TILE), -(-out_x // TILE)
        grid = (
            left,
            tiles_x * TILE + overlap - width - left,
            above,
            tiles_y * TILE + overlap - height - above,
        )
        padded = functional.pad(image.permute(0, 2, 3, 1), (0, 0, *grid))
        tiles = _tiles_in(padded, tiles_y, tiles_x, matrices.input)
        kernels = torch.einsum("ak,bl,dckl->bacd", matrices.kernel, matrices.kernel, weight)
        kernels = kernels.reshape(len(tiles), *kernels.shape[2:])
        out = _tiles_out(torch.bmm(tiles, kernels), (n, tiles_y, tiles_x), matrices.output)
        out = out[:, :out_y, :out_x].add_(bias)
        context.save_for_backward(tiles, kernels)
        context.sizes = (image.shape, weight.shape, grid, (n, tiles_y, tiles_x))
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:
        tiles, kernels = context.saved_tensors
        image_shape, weight_shape, grid, counts = context.sizes
        matrices = transforms(weight_shape[-1], gradient.dtype)
        needs_image, needs_weight, needs_bias, _ = context.needs_input_grad
        _, tiles_y, tiles_x = counts
        of_out = gradient.permute(0, 2, 3, 1)
        missing = tiles_y * TILE - of_out.shape[1], tiles_x * TILE - of_out.shape[2]
        if any(missing):
            of_out = functional.pad(of_out, (0, 0, 0, missing[1], 0, missing[0]))
        of_products = _tiles_out_transposed(of_out, counts, matrices.output)
        of_image = of_weight = of_bias = None
        if needs_image:
            of_tiles = torch.bmm(of_products, kernels.transpose(1, 2))
            of_padded = _tiles_in_transposed(of_tiles, counts, matrices.input)
            left, _, above, _ = grid
            of_image = of_padded[
                :, above : above + image_shape[2], left : left + image_shape[3]
            ].permute(0, 3, 1, 2)
        if needs_weight:
            points = len(matrices.input)
            of_kernels = torch.bmm(tiles.transpose(1, 2), of_products)
            of_weight = torch.einsum(
                "ak,bl,bacd->dckl",
                matrices.kernel,
                matrices.kernel,
                of_kernels.view(points, points, *of_kernels.shape[1:]),
            )
        if needs_bias:
            of_bias = gradient.sum(dim=(0, 2, 3))
        return of_image, of_weight, of_bias, None


def _tiles_in(
    padded: Float[Tensor, "n h w c"], tiles_y: int, tiles_x: int, matrix: Float[Tensor, "p p"]
) -> Float[Tensor, "pp tiles c"]:
    """Transformed tiles, by their column point, then row point; tiles by image, row, column."""
    points = len(matrix)
    n, height, width, c = padded.shape
    rows = padded.as_strided(
        (points, n, tiles_y, width * c), (width * c, height * width * c, TILE * width * c, 1)
    )
    by_row = matrix @ rows.reshape(points, -1)
    columns = by_row.as_strided(
        (points, points * n * tiles_y, tiles_x, c), (c, width * c, TILE * c, 1)
    )
    return (matrix @ columns.reshape(points, -1)).view(points * points, n * tiles_y * tiles_x, c)


def _tiles_in_transposed(
    of_tiles: Float[Tensor, "pp tiles c"],
    counts: tuple[int, int, int],
    matrix: Float[Tensor, "p p"],
) -> Float[Tensor, "n h w c"]:
    """Gradient of the padded image: what `_tiles_in` took from each pixel is added up there."""
    n, tiles_y, tiles_x = counts
    points, c = len(matrix), of_tiles.shape[-1]
    columns = (matrix.T @ of_tiles.view(points, -1)).view(points, points * n * tiles_y, tiles_x, c)
    by_row = _overlapped(columns.transpose(0, 1).transpose(1, 2))
    width = by_row.shape[1]
    rows = (matrix.T @ by_row.view(points, -1)).view(points, n, tiles_y, width * c)
    return _overlapped(rows.permute(1, 2, 0, 3)).view(n, -1, width, c)


def _overlapped(tiles: Float[Tensor, "n tiles p c"]) -> Float[Tensor, "n h c"]:
    """Lines of overlapping tiles, added where they overlap."""
    n, count, points, c = tiles.shape
    overlap = points - TILE
    line = tiles.new_empty(n, count * TILE + overlap, c)
    line[:, : count * TILE].view(n, count, TILE, c).copy_(tiles[:, :, :TILE])
    line[:, count * TILE :] = 0
    line[:, TILE:].as_strided(
        (n, count, overlap, c),
        (line.stride(0), TILE * c, c, 1),
        line.storage_offset() + TILE * c,
    ).add_(tiles[:, :, TILE:])
    return line


def _tiles_out(
    products: Float[Tensor, "pp tiles d"],
    counts: tuple[int, int, int],
    matrix: Float[Tensor, "tile p"],
) -> Float[Tensor, "n h w d"]:
    """Outputs of all tiles, put together."""
    n, tiles_y, tiles_x = counts
    points, d = matrix.shape[1], products.shape[-1]
    by_column = (matrix @ products.view(points, -1)).view(TILE, points, -1)
    outputs = (matrix @ by_column).view(TILE, TILE, n, tiles_y, tiles_x, d)
    return outputs.permute(2, 3, 1, 4, 0, 5).reshape(n, tiles_y * TILE, tiles_x * TILE, d)


def _tiles_out_transposed(
    of_out: Float[Tensor, "n h w d"],
    counts: tuple[int, int, int],
    matrix: Float[Tensor, "tile p"],
) -> Float[Tensor, "pp tiles d"]:
    """Gradient of the products of all tiles."""
    n, tiles_y, tiles_x = counts
    points, d = matrix.shape[1], of_out.shape[-1]
    of_outputs = of_out.reshape(n, tiles_y, TILE, tiles_x, TILE, d).permute(4, 2, 0, 1, 3, 5)
    by_column = matrix.T @ of_outputs.reshape(TILE, TILE, -1)
    return (matrix.T @ by_column.reshape(TILE, -1)).view(points * points, -1, d)
