"""No benchmark is left out of the tests that a wrong store has no figure."""

import pytest

from tests import test_benchmarks, test_benchmarks_reading, test_benchmarks_writing

pytestmark = pytest.mark.unmeasured

# Each has a test of its own for what it does.
OF_THEIR_OWN = {
    "encoding.ColdEncoded",
    "loaders.LoaderCalls",
    "loaders.LoaderEpoch",
    "loaders.LoaderStart",
    "shards.OpenIndex",
    "shards.ReadShards",
    "shards.WriteShards",
    "calibration.Cpu",
    "calibration.Disk",
    "concurrency.WriteSeveral",
    "encoding.EncodedRead",
    "encoding.EncodedUsage",
    "encoding.EncodedWrite",
    "encoding.Folder",
    "encoding.PillowAlone",
    "floor.Memory",
    "floor.OneHdf5",
    "floor.OneLmdb",
    "floor.OnePng",
    "memory.PeakWrite",
    "plain_stores.PlainBatches",
    "plain_stores.PlainOne",
    "plain_stores.PlainOpen",
    "plain_stores.PlainRead",
    "plain_stores.PlainSyncedWrite",
    "plain_stores.PlainUsage",
    "plain_stores.PlainWrite",
    "startup.ImportBackend",
    "startup.ImportPackage",
    "work.Instructions",
    "work.PlainInstructions",
    "work.Memory",
    "work.PlainSystemCalls",
    "work.SystemCalls",
}


def class_of(name: str) -> str:
    """Return what has the setup of a benchmark."""
    return name.rpartition(".")[0]


def test_each_benchmark_is_looked_at() -> None:
    """A new one is put into one of the lists of those that wrong pixels, or nothing, fail."""
    names = [
        *test_benchmarks.LOOKED_AT,
        *test_benchmarks.FLOORS_LOOKED_AT,
        *test_benchmarks_reading.READS,
        *(case[0] for case in test_benchmarks_writing.STORES),
        *(case[0] for case in test_benchmarks_writing.LIBRARIES),
    ]
    looked_at = set(map(class_of, names))
    assert not looked_at & OF_THEIR_OWN
    assert set(map(class_of, test_benchmarks.EXPECTED)) == looked_at | OF_THEIR_OWN
