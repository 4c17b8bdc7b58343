"""Draws the images of the embedded data set with NumPy: textured shapes in cluttered scenes.

Random numbers are the raw output of PCG64, and a pixel only sees operations that IEEE 754 rounds
exactly (no sine, no exponential), so every machine and every NumPy draws the same bytes.
"""

import numpy as np

IMAGE_SIZE = 32
SHAPES = ("disk", "ring", "triangle", "cross", "star")
TEXTURES = ("striped", "checked")
CLASS_NAMES = tuple(f"{texture}_{shape}" for shape in SHAPES for texture in TEXTURES)

_SUPERSAMPLING = 2
_PIXEL = 2.0 / IMAGE_SIZE  # one pixel, in a scene that reaches from -1 to 1
_NUM_BARS = 1
_NUM_BLOBS = 1


class _Draws:
    """Uniform random numbers for `count` images, each of shape [count, 1, 1] to meet a scene."""

    def __init__(self, seed: tuple[int, ...], count: int):
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))
        self._count = count

    def uniform(self, low: float, high: float) -> np.ndarray:
        return low + (high - low) * self.field(1)

    def field(self, size: int) -> np.ndarray:
        """Uniform in [0, 1), shape [count, size, size]."""
        raw = self._bits.random_raw(self._count * size * size)
        unit = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return unit.reshape(self._count, size, size)

    def direction(self) -> tuple[np.ndarray, np.ndarray]:
        """A random unit vector: the rational points of a quarter circle, in all four quadrants."""
        t = self.field(1)
        cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        mirror_x, mirror_y = (np.where(self.field(1) < 0.5, -1.0, 1.0) for _ in range(2))
        return cosine * mirror_x, sine * mirror_y

    def tilt(self) -> tuple[np.ndarray, np.ndarray]:
        """A random unit vector at most 30 degrees off the x axis."""
        t = self.uniform(-0.268, 0.268)
        return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)

    def color(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Shape [count, 1, 1, 3]."""
        return np.stack([self.uniform(low, high) for _ in range(3)], axis=-1)


def draw(labels: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
    """Draws one image for each label.

    Args:
        labels: class indices into `CLASS_NAMES`, [count].
        seed: the same seed and labels give the same bytes.

    Returns:
        uint8 images, [count, IMAGE_SIZE, IMAGE_SIZE, 3].
    """
    draws = _Draws(seed, len(labels))
    y, x = _grid()
    scene = _background(draws, x, y)
    scene = _draw_object(scene, draws, x, y, np.asarray(labels).reshape(-1, 1, 1))
    scene = _paint(scene, _bar(draws, x, y, reach=0.5, width=(0.04, 0.14)), draws.color())
    return _expose(_shrink(scene), draws)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Sample coordinates (y, x) in the scene, [1, n, 1] and [1, 1, n]."""
    n = IMAGE_SIZE * _SUPERSAMPLING
    centers = (2.0 * np.arange(n) + 1.0) / n - 1.0
    return centers.reshape(1, n, 1), centers.reshape(1, 1, n)


def _background(draws: _Draws, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A color gradient with bars, disks and a patch of texture as clutter, [count, n, n, 3]."""
    cosine, sine = draws.direction()
    ramp = (cosine * x + sine * y) * 0.35 + 0.5
    start, end = draws.color(0.0, 0.6), draws.color(0.0, 0.6)
    scene = start + (end - start) * ramp[..., np.newaxis]
    for _ in range(_NUM_BARS):
        scene = _paint(scene, _bar(draws, x, y, reach=1.0, width=(0.03, 0.15)), draws.color())
    for _ in range(_NUM_BLOBS):
        dx, dy = x - draws.uniform(-1, 1), y - draws.uniform(-1, 1)
        blob = dx * dx + dy * dy < draws.uniform(0.01, 0.08)
        # Blobs wear the objects' textures too: texture alone does not tell the class.
        pattern = _texture(draws, x, y, draws.field(1) < 0.5)
        scene = _paint(scene, blob, draws.color())
        scene = _paint(scene, blob & pattern, draws.color())
    return scene


def _bar(
    draws: _Draws, x: np.ndarray, y: np.ndarray, reach: float, width: tuple[float, float]
) -> np.ndarray:
    """A straight bar across the scene at most `reach` from its center, as a mask."""
    cosine, sine = draws.direction()
    distance = cosine * x + sine * y - draws.uniform(-reach, reach)
    return np.abs(distance) < draws.uniform(*width)


def _draw_object(
    scene: np.ndarray, draws: _Draws, x: np.ndarray, y: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """The shape that gives the image its class, in two colors of its texture."""
    size = draws.uniform(0.65, 0.95)
    center_x, center_y = (draws.uniform(-1, 1) * (1.02 - size) for _ in range(2))
    cosine, sine = draws.tilt()
    stretch = draws.uniform(0.85, 1.18)
    dx, dy = (x - center_x) / size, (y - center_y) / size
    u, v = (cosine * dx + sine * dy) * stretch, (cosine * dy - sine * dx) / stretch
    mask = _shape(u, v, labels // len(TEXTURES))
    pattern = _texture(draws, x, y, labels % len(TEXTURES) == 1)
    light = draws.color(0.6, 1.0)
    scene = _paint(scene, mask, light)
    return _paint(scene, mask & pattern, light - draws.color(0.25, 0.6))


def _shape(u: np.ndarray, v: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The mask of each image's shape, all of about the same area, in the object's coordinates."""
    a, b = np.abs(u), np.abs(v)
    masks = (
        u * u + v * v < 0.72,
        (u * u + v * v < 0.9) & (u * u + v * v > 0.2),
        (v > -0.62) & (1.8 * a + v < 1.05),
        (np.minimum(a, b) < 0.32) & (np.maximum(a, b) < 0.98),
        np.sqrt(a) + np.sqrt(b) < 1.18,
    )
    return np.select([shape == i for i in range(len(masks))], masks)


def _texture(draws: _Draws, x: np.ndarray, y: np.ndarray, checked: np.ndarray) -> np.ndarray:
    """Stripes, or the checks made of two crossing sets of stripes, as a mask."""
    cosine, sine = draws.direction()
    period = draws.uniform(4.0, 6.0) * _PIXEL
    along, across = cosine * x + sine * y, cosine * y - sine * x
    stripes = _is_odd(along / period + draws.uniform(0, 1))
    crossing = _is_odd(across / period + draws.uniform(0, 1))
    return stripes ^ (crossing & checked)


def _is_odd(phase: np.ndarray) -> np.ndarray:
    return phase - np.floor(phase) < 0.5


def _paint(scene: np.ndarray, mask: np.ndarray, color: np.ndarray) -> np.ndarray:
    return np.where(mask[..., np.newaxis], color, scene)


def _shrink(scene: np.ndarray) -> np.ndarray:
    """The mean of each 2x2 block of samples."""
    rows = scene[:, 0::2] + scene[:, 1::2]
    return (rows[:, :, 0::2] + rows[:, :, 1::2]) * 0.25


def _expose(scene: np.ndarray, draws: _Draws) -> np.ndarray:
    """Contrast, brightness and noise of a poor camera, rounded to uint8."""
    contrast = draws.uniform(0.6, 1.0)[..., np.newaxis]
    brightness = draws.uniform(-0.12, 0.12)[..., np.newaxis]
    strength = draws.uniform(0.02, 0.09)
    noise = [strength * (draws.field(IMAGE_SIZE) - draws.field(IMAGE_SIZE)) for _ in range(3)]
    exposed = (scene - 0.5) * contrast + 0.5 + brightness + np.stack(noise, axis=-1)
    return np.floor(np.clip(exposed, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
