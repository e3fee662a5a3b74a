"""Pillow and the checksums of PNG."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import storage_impl
from tests.samples import images_of, labels_of

SHAPE = (20, 20, 3)


def with_wrong_crc(data: bytes) -> bytes:
    """Damage the checksum of the last chunk of data."""
    end = data.rindex(b"IEND") - 4
    return data[: end - 1] + bytes([data[end - 1] ^ 1]) + data[end:]


@pytest.mark.xfail(reason="Pillow does not check the CRC of IDAT")
def test_wrong_crc() -> None:
    """A chunk whose CRC is wrong is reported."""
    buffer = BytesIO()
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(buffer, "PNG")
    with pytest.raises((OSError, SyntaxError)):
        Image.open(BytesIO(with_wrong_crc(buffer.getvalue()))).load()


def test_checksum_of_the_pixels(tmp_path: Path) -> None:
    """Around it: what is decoded is compared with a checksum of the pixels."""
    path = tmp_path / "store"
    with storage_impl.create_store(path, "png", image_shape=SHAPE) as store:
        store.write_many(images_of(2, SHAPE), labels_of(2))
    first, second = sorted(path.rglob("*.png"))
    first.write_bytes(second.read_bytes())
    with storage_impl.open_store(path) as store, pytest.raises(storage_impl.DamagedImageError):
        store.verify()
