"""Images of one's own: their results stand beside the others, and they are looked at before."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asv import environment
from asv.config import Config
from asv.util import UserError
from PIL import Image

from report import obstacles, own_images, results, runner
from tests import stored_results

pytestmark = pytest.mark.unmeasured

READ = "many_images.ReadMany.time_read"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder of three images, which is what is measured on."""
    directory = tmp_path / "my photos"
    directory.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(directory / f"{number}.png")
    monkeypatch.setenv(own_images.DATASET, str(directory))
    monkeypatch.delenv("STORAGE_IMPL_SKIP_BAD", raising=False)
    return directory


@pytest.fixture(autouse=True)
def undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave asv as it was."""
    monkeypatch.setattr(environment, "iter_matrix", environment.iter_matrix)
    own_images._look.cache_clear()
    yield
    own_images._look.cache_clear()


def environments() -> list[Any]:
    """Return the environments that asv measures in."""
    conf = Config.load(str(stored_results.ROOT / "asv.conf.json"))
    conf.environment_type = "virtualenv"
    return list(environment.get_environments(conf, None))


def test_they_are_another_environment_of_the_same_packages(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their results have a file of their own, which names no path; nothing is installed again."""
    (own,) = tagged()
    monkeypatch.delenv(own_images.DATASET)
    (default,) = environments()
    assert own.name != default.name
    assert own.dir_name == default.dir_name
    assert own.requirements == default.requirements
    assert own.env_vars == {own_images.TAG: "my photos"}
    assert default.env_vars == {}
    assert str(photos) not in own.name


def tagged() -> list[Any]:
    """Return the environments with the plugin."""
    own_images.keep_apart()
    return environments()


def test_synthetic_images_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without images of one's own, environments are called as without the plugin."""
    monkeypatch.delenv(own_images.DATASET, raising=False)
    before = [each.name for each in environments()]
    assert [each.name for each in tagged()] == before


def test_what_is_measured_on_is_said(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Before anything is measured it is said what there is; once for a command."""
    tagged()
    environments()
    assert capfd.readouterr().out == "3 images with 1 label in my photos\n3 PNG; 8 x 8 pixels\n"


def test_a_command_and_its_asv_look_once(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a command has looked at, which may be 100,000 files, the asv that it starts does not."""
    monkeypatch.setenv(own_images.SEEN, "")  # undone at the end
    assert runner.unless_obstructed(lambda: len(tagged())) == 1
    assert capfd.readouterr().out.count("3 images") == 1
    monkeypatch.setenv(own_images.DATASET, str(photos.parent))
    environments()
    assert capfd.readouterr().out.count("3 images") == 1


def test_bad_images_stop_a_run(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither asv nor a command of tox begins; which image it is, is said in lines and no more."""
    (photos / "1.png").write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot be used as they are"):
        tagged()
    assert "  1.png: cannot identify image file" in capfd.readouterr().out
    with pytest.raises(obstacles.ObstacleError, match="cannot be used as they are"):
        obstacles.check_dataset()


@pytest.mark.parametrize("where", ["empty", "nowhere"])
def test_no_images_stop_a_run(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without images, or that is not there, is one sentence."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv(own_images.DATASET, str(tmp_path / where))
    message = "holds no image in a format" if where == "empty" else "does not exist"
    with pytest.raises(UserError, match=message):
        tagged()


def test_without_pillow_nothing_is_looked_at(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain asv needs no Pillow: what is bad shows when it is measured."""
    (photos / "1.png").write_bytes(b"torn")
    monkeypatch.setattr(own_images, "find_spec", lambda name: None)
    assert len(tagged()) == 1


def test_results_have_the_name_of_the_images(tmp_path: Path) -> None:
    """Those of an environment with images of one's own are of these, the others of the default."""
    made = stored_results.store(tmp_path / "stored", datasets=["photos"])
    found = [next(results.read_all(str(made.results), stored_results.known_benchmarks()))]
    assert list(found[0].datasets) == ["photos"]
    assert READ in found[0].datasets["photos"]
    assert own_images.name_of({}, "2") == own_images.DEFAULT
    assert own_images.name_of({}, "2, cifar") == "cifar"  # as before there was the variable
    assert own_images.name_of({own_images.TAG: "a"}, "2") == "a"


def test_the_name_is_that_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what the folder is called, however its path ends."""
    for path, expected in (("", "synthetic"), ("/data/my photos", "my photos"), ("/d/c/", "c")):
        monkeypatch.setitem(os.environ, own_images.DATASET, path)
        assert own_images.name() == expected
