"""Images to test with."""

import numpy as np
from PIL import Image


def random_image(seed, height=24, width=24):
    """Blurry noise, so that JPEG keeps it: uint8 [height, width, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.BILINEAR))


def write_classes(folder, counts, size=(24, 24), extension="jpg", first_seed=0):
    """Writes `counts[name]` images in a folder per class name."""
    seed = first_seed
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = Image.fromarray(random_image(seed, *size))
            image.save(folder / name / f"{i:04d}.{extension}")
            seed += 1
