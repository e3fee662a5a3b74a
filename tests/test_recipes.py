"""The code of docs/recipes.md runs; collected where its libraries are (`tox run -e recipes`)."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import storage_impl
from tests.samples import images_of

TEXT = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
RECIPES = dict(re.findall(r"```python (\w+)\n(.*?)```", TEXT, re.DOTALL))
COUNT = 1000

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the frameworks warn of much on import
]


@pytest.fixture
def ran(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """What a recipe leaves in its names."""
    monkeypatch.chdir(tmp_path)
    with storage_impl.create_store("train.lmdb", "lmdb", image_shape=(8, 8, 3)) as store:
        store.write_many(images_of(COUNT, (8, 8, 3)), np.arange(COUNT) % 10)
    names: dict = {}
    with warnings.catch_warnings():
        exec(compile(RECIPES[request.param], request.param, "exec"), names)
    return names


def check(images: object, labels: object) -> None:
    """Each image has its own label."""
    known = {image.tobytes(): i % 10 for i, image in enumerate(images_of(COUNT, (8, 8, 3)))}
    for image, label in zip(np.asarray(images), np.asarray(labels), strict=True):
        assert known[image.tobytes()] == label


@pytest.mark.parametrize("ran", ["tensorflow"], indirect=True)
def test_tensorflow(ran: dict) -> None:
    """An epoch holds each image once, with its label."""
    batches = [(images.numpy(), labels.numpy()) for images, labels in ran["dataset"]]
    assert [len(labels) for _, labels in batches] == [256, 256, 256, 232]
    images = np.concatenate([images for images, _ in batches])
    check(images, np.concatenate([labels for _, labels in batches]))
    assert len({image.tobytes() for image in images}) == COUNT


@pytest.mark.parametrize("ran", ["keras"], indirect=True)
def test_keras(ran: dict) -> None:
    """The same, in another order in the next epoch."""
    images = ran["images"]
    first = [images[number] for number in range(len(images))]
    check(*(np.concatenate(part) for part in zip(*first, strict=True)))
    assert len({each.tobytes() for batch, _ in first for each in batch}) == COUNT
    images.on_epoch_end()
    assert not np.array_equal(images[0][0], first[0][0])


@pytest.mark.parametrize("ran", ["grain"], indirect=True)
def test_grain(ran: dict) -> None:
    """A state goes on after the batch it was taken at."""
    assert ran["images"].shape == (256, 8, 8, 3)
    check(ran["images"], ran["labels"])
    following = next(ran["iterator"])
    ran["iterator"].set_state(ran["state"])
    again = next(ran["iterator"])
    assert np.array_equal(following[0], again[0])
    check(*again)


def test_all_recipes_are_run() -> None:
    """No code on the page is left out."""
    assert set(RECIPES) == {"torch", "tensorflow", "keras", "grain"}
