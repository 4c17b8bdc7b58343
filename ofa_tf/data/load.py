"""load_dataset: a TFDS name or a folder in, ImageData out."""

from ofa_tf.data.pipeline import ImageData
from ofa_tf.data.splits import NEWEST_SPLITS, OLD_SPLITS
from ofa_tf.errors import UsageError

# Decoded training images up to this size are kept in memory.
_CACHE_BYTES = 1_500_000_000


def load_dataset(
    dataset: str | None = None,
    data_dir: str | None = None,
    *,
    train_split: str | None = None,
    test_split: str | None = None,
    num_validation: int | None = None,
    flip: bool | None = None,
    tfds_dir: str | None = None,
    cache_dir: str | None = None,
    cache_bytes: int = _CACHE_BYTES,
    seed: int = 0,
    splits: int = NEWEST_SPLITS,
) -> ImageData:
    """Loads images by the name of a TFDS set, or from a folder.

    Args:
        dataset: a TFDS image-classification set, as `name`, `name/config` or `name/config:version`;
            `ofa_doodles` is drawn on the spot and needs no download.
        data_dir: a folder with class folders in `train/` and in `test/`, and in `val/` if there
            are validation images (which serve as test images where there is no `test/`); or a
            folder of class folders, of which a tenth of each class becomes the test images.
        train_split: TFDS split of the training images; default "train".
        test_split: TFDS split of the test images; default "test", or "validation" where there is
            no test split with labels.
        num_validation: training images to hold out, of each class the same share; default about
            10 %, at most about 10,000.
        flip: whether a mirrored image keeps its class; default yes, except for known sets of
            digits and letters.
        tfds_dir: where prepared TFDS sets are; default TFDS's own. The embedded set is prepared
            there, or else under `cache_dir`.
        cache_dir: where the check of a folder's files is remembered; None: nowhere.
        cache_bytes: training images of one size are decoded once and kept in memory if they take
            no more than this; otherwise they are read and decoded as they are needed.
        seed: chooses the validation images, and the test images of a folder without any.
        splits: how it chooses them. 2: files by their names, so that adding or removing files
            moves no other; 1: by their places among all files, as jobs do that were begun so.

    Raises:
        UsageError: for an unknown or unsuitable set, split or folder.
        FailureError: for a set that is not prepared and cannot be downloaded.
    """
    if splits not in (OLD_SPLITS, NEWEST_SPLITS):
        raise UsageError(
            f"splits is {splits!r}; this version knows {OLD_SPLITS} and {NEWEST_SPLITS}."
        )
    if dataset is not None and data_dir is None:
        # TFDS takes a while to import, so only when it is needed.
        from ofa_tf.data import tfds_sets

        found = tfds_sets.load(
            dataset,
            train_split,
            test_split,
            tfds_dir,
            cache_dir,
            cache_bytes,
            num_validation,
            seed,
        )
    elif data_dir is not None and dataset is None:
        from ofa_tf.data import folder

        if train_split or test_split:
            raise UsageError("train_split and test_split name TFDS splits; a folder has none.")
        found = folder.load(data_dir, cache_dir, cache_bytes, num_validation, seed, splits)
    else:
        raise UsageError("Give either dataset (a TFDS name) or data_dir (a folder of images).")
    return ImageData(
        found.name,
        found.class_names,
        found.train,
        found.test,
        found.validation,
        flip=found.allows_flip if flip is None else flip,
        census=found.census,
    )
