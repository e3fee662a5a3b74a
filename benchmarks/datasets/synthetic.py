"""Synthetic images with the statistics of CIFAR-10, the same on every machine."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets._images import Images, Labels, check

# The images are noise in octaves: a grid of 1 x 1 is doubled and given finer noise until it has the
# size that is asked for. All numbers are integers, drawn from the raw stream of a bit generator.
# Both are the same on every platform and in every version of numpy. Normal deviates and Fourier
# transforms are not.
#
# Brightness is in units of 1/64 of a grey level.

_UNIT = 64
# The most brightness that the noise of each octave adds, in grey levels, before the factors of each
# image. Octaves after the last one listed have 5/8 of the one before. A search for the statistics
# of CIFAR-10 gave these numbers and those below.
_OCTAVES = (24, 112, 104, 84, 22)
# The range of two factors of each image, in 1/256: contrast, for all octaves except the first
# (which is the image's mean), and detail, for the fine octaves.
_CONTRAST = (40, 288)
_DETAIL = (16, 528)
_FIRST_DETAIL = 4
# Texture differs within an image: from this octave's grid on, the noise is weaker in some places
# than in others, down to 16/256 of its maximum.
_TEXTURE_GRID = 2
_LEAST_TEXTURE = 16
# Rows: red, green, blue. Columns: their mean; then the weights, in 1/64, of three independent
# fields: the principal components of CIFAR-10's colours.
_COLOURS = ((126, 62, 22, 6), (124, 64, 1, -12), (114, 66, -22, 6))


def make(count: int, size: int = 32, *, seed: int = 0) -> tuple[Images, Labels]:
    """Return images of random texture with the statistics of CIFAR-10, and random labels 0 to 9.

    At 32 pixels they agree with CIFAR-10 in the mean and the spread of their size as PNG, and in
    the mean, deviation and correlation of their channels. The mean difference of neighbouring
    pixels is 7% less. Larger images add finer and fainter detail, as photographs do.

    The same `size` and `seed` give the same bits on every platform and with every version of numpy.
    Image ``i`` is the same whatever `count` is.

    Parameters
    ----------
    count : int
        How many images, 0 or more.
    size : int
        Their height and width in pixels, 1 or more.
    seed : int
        0 or more.

    Returns
    -------
    images : ndarray of uint8, shape (count, size, size, 3)
    labels : ndarray of int64, shape (count,)

    Raises
    ------
    ValueError
        `count`, `size` or `seed` is out of range.
    """
    check(count, size)
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, not {seed}")
    # Many images at a time, so that numpy is fast, but within about 100 MB up to 512 pixels.
    block = min(128, max(1, 2**20 // size**2))
    images = np.empty((count, size, size, 3), np.uint8)
    labels = np.empty(count, np.int64)
    for start in range(0, count, block):
        noise = _Noise(np.random.PCG64(np.random.SeedSequence([seed, size, start // block])))
        stop = min(start + block, count)
        labels[start:stop] = (noise.draw(block) * 10 >> 8)[: stop - start]
        images[start:stop] = _textures(noise, size, block)[: stop - start]
    return images, labels


def photos(sizes: Sequence[tuple[int, int]]) -> list[Images]:
    """Return images whose files are about as long as those of photographs of the same size.

    They are the images of `make`, whose upper quarter also gets a texture as fine as at 32 pixels.
    At 256 pixels, a PNG file takes 0.52 of the bytes of the pixels, a JPEG file of quality 90 takes
    0.085, and a lossless WebP file takes 0.47. In one sample of photographs these are 0.52, 0.09
    and 0.43, and in another, of 13 photographs, 0.57, 0.11 and 0.48.

    Parameters
    ----------
    sizes : sequence of tuple of int
        The height and width of each image in pixels, 1 or more.

    Returns
    -------
    list of ndarray of uint8, shape (height, width, 3)
    """
    sides = [max(size) for size in sizes]
    plain = {side: iter(make(sides.count(side), side)[0]) for side in set(sides)}
    found = []
    for (height, width), side, grain in zip(sizes, sides, make(len(sizes), 32)[0], strict=True):
        image = next(plain[side])[:height, :width].astype(np.int32)
        upper = image[: height // 4]
        repeats = (len(upper) // 32 + 1, width // 32 + 1, 1)
        upper += np.tile(grain.astype(np.int32) - 128, repeats)[: len(upper), :width]
        found.append(np.clip(image, 0, 255).astype(np.uint8))
    return found


class _Noise:
    """Uniform bytes from the raw stream of a bit generator."""

    def __init__(self, generator: np.random.PCG64) -> None:
        self._generator = generator

    def draw(self, *shape: int) -> NDArray[np.int32]:
        """Return an array of this shape of integers 0 to 255."""
        length = int(np.prod(shape))
        words = np.asarray(self._generator.random_raw(-(-length // 8)), "<u8")
        return words.view(np.uint8)[:length].reshape(shape).astype(np.int32)


def _textures(noise: _Noise, size: int, number: int) -> Images:
    """Return `number` images; until the end, arrays are (height, width, field, image).

    Every operation treats all fields and images alike, and numpy is fastest with such axes last.
    """
    sides = [size]
    while sides[0] > 1:
        sides.insert(0, (sides[0] + 1) // 2)

    low, high = _CONTRAST
    # The product of two random bytes is mostly small, so few images are flat, as in CIFAR-10.
    contrast = low + ((high - low) * (255 - (noise.draw(number) * noise.draw(number) >> 8)) >> 8)
    low, high = _DETAIL
    detail = low + ((high - low) * noise.draw(number) >> 8)

    peak = _UNIT * _OCTAVES[0]
    fields = (2 * noise.draw(1, 1, 3, number) - 255) * peak >> 8
    texture = np.empty(0, np.int32)
    for octave, side in enumerate(sides[1:], start=1):
        peak = _UNIT * _OCTAVES[octave] if octave < len(_OCTAVES) else peak * 5 >> 3
        weight = peak * contrast >> 8
        if octave >= _FIRST_DETAIL:
            weight = weight * detail >> 8
        if octave == _TEXTURE_GRID:
            span = 256 - _LEAST_TEXTURE
            texture = _LEAST_TEXTURE + (noise.draw(side, side, 1, number) * span >> 8)
        elif octave > _TEXTURE_GRID:
            texture = _doubled(texture)[:side, :side]
            weight = texture * weight >> 7
        grain = 2 * noise.draw(side, side, 3, number) - 255
        grain *= weight
        grain >>= 8
        grain += _doubled(fields)[:side, :side]
        fields = grain

    images = np.empty((number, size, size, 3), np.uint8)
    first, second, third = fields.transpose(2, 0, 1, 3)
    for channel, (mean, *weights) in enumerate(_COLOURS):
        mixed = first * weights[0] + second * weights[1] + third * weights[2]
        levels = (mixed // 64 + mean * _UNIT) // _UNIT
        images[..., channel] = np.clip(levels, 0, 255).transpose(2, 0, 1)
    return images


def _doubled(fields: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return `fields` at twice the height and width: 3/4 of the nearest value, 1/4 of the next."""
    for _ in range(2):
        edged = np.concatenate((fields[:1], fields, fields[-1:]))
        near = fields * 3
        wide = np.empty((2 * len(fields), *fields.shape[1:]), np.int32)
        wide[0::2] = (near + edged[:-2]) >> 2
        wide[1::2] = (near + edged[2:]) >> 2
        fields = wide.swapaxes(0, 1)
    return fields
