"""What storage_impl costs beside plain code: the script measures every row."""

import pytest

from benchmarks import cost

pytestmark = pytest.mark.unmeasured


def test_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    """Each row has a figure and what is asked of it, or says why it was not measured."""
    cost.main(["--images", "100", "--samples", "1"])
    lines = capsys.readouterr().out.splitlines()
    measured = [line for line in lines if "<=" in line or ">=" in line]
    missing = [line for line in lines if "not measured" in line]
    assert len(measured) + len(missing) >= 24 - 9
    for backend in ("png", "lmdb", "hdf5"):
        assert any(line.startswith(f"{backend}: open and read all") for line in measured)


def test_what_is_read_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that returns other pixels stops the run."""
    read_many = cost.storage_impl.ImageStore.read_many

    def wrong(store: cost.storage_impl.ImageStore, *given: object, **named: object) -> object:
        images, labels = read_many(store, *given, **named)  # type: ignore[arg-type]
        images[0, 0, 0] ^= 1
        return images, labels

    monkeypatch.setattr(cost.storage_impl.ImageStore, "read_many", wrong)
    with pytest.raises(RuntimeError):
        cost.main(["--images", "100", "--samples", "1"])


@pytest.mark.parametrize(
    ("least", "middle", "missed"), [(False, 1.1, True), (False, 0.9, False), (True, 0.9, True)]
)
def test_a_miss_is_marked(least: bool, middle: float, missed: bool) -> None:
    """At most or at least what is asked."""
    side = cost.Side(lambda: None)
    row = cost.Row("what", 1.0, side, side, least=least)
    assert cost.line(row, [middle] * 3, [1.0]).endswith("missed") is missed
