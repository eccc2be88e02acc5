"""Workers: whatever their number and their fate, the bytes are those of the serial run."""

from __future__ import annotations

import os
import pickle
import signal
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import SHAPE, save_classifier, save_samples

from onnxq.data.open import open_dataset
from onnxq.data.sample import InputSpec
from onnxq.errors import CalibrationError, UsageError
from onnxq.ir.load import load
from onnxq.stats.cache import Cache
from onnxq.stats.engine import calibrate
from onnxq.stats.parallel import Pool, pickled, run_task, split, threads_each

SPECS = (InputSpec(name="image", dtype=np.dtype(np.float32), shape=("N", *SHAPE)),)
NAMES = ["image", "c", "r", "p", "scores"]
COUNT = 14


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save_classifier(tmp_path / "m.onnx")
    save_samples(tmp_path / "s.npz", COUNT)
    return tmp_path


def run(place: Path, executor: Executor | Pool | None, **options: Any) -> Any:
    data = open_dataset(place / "s.npz", SPECS)
    return calibrate(load(place / "m.onnx"), NAMES, data, threads=1, executor=executor, **options)


def saved(outcome: Any, path: Path) -> bytes:
    outcome.statistics.save(path)
    return path.read_bytes()


class Backwards(Executor):
    """Runs the latest task first."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self._held: list[tuple[Future[Any], Any, Any]] = []

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._held.append((future, function, args))
        if len(self._held) == 2 or args[0].stop == COUNT:
            for held, what, given in reversed(self._held):
                self.order.append(given[0].start)
                held.set_result(what(*given))
            self._held = []
        return future


def test_any_executor_and_any_order_give_the_bytes_of_the_serial_run(place: Path) -> None:
    expected = saved(run(place, None), place / "serial.npz")
    backwards = Backwards()
    backwards._max_workers = 1  # type: ignore[attr-defined]
    assert saved(run(place, backwards), place / "backwards.npz") == expected
    assert backwards.order != sorted(backwards.order)
    with ThreadPoolExecutor(3) as threads:
        assert saved(run(place, threads), place / "threads.npz") == expected


def test_processes_give_the_bytes_of_the_serial_run(place: Path) -> None:
    done = run(place, Pool(workers=2))
    assert saved(done, place / "a.npz") == saved(run(place, None), place / "b.npz")
    assert (done.ran, done.resumed) == (COUNT, 0)


def _die(task: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_an_error_and_what_was_done_is_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(place / "cache")

    class Failing(ThreadPoolExecutor):
        """The last piece goes to a process that kills itself."""

        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if args[0].stop == COUNT:
                return processes.submit(_die, args[0])
            return super().submit(function, *args, **kwargs)

    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes,
        Failing(1) as failing,
        pytest.raises(CalibrationError, match="a worker process died"),
    ):
        run(place, failing, cache=cache)
    again = run(place, None, cache=cache)
    assert again.resumed > 0
    assert again.ran == COUNT - again.resumed
    assert saved(again, place / "a.npz") == saved(run(place, None), place / "b.npz")


def test_what_a_worker_finds_wrong_reaches_the_user(place: Path) -> None:
    images = np.zeros((COUNT, *SHAPE), np.float32)
    images[9] = np.nan
    np.savez(place / "s.npz", image=images)
    with pytest.raises(CalibrationError, match=r'tensor "\w+" has NaN in sample 9'):
        run(place, Pool(workers=2))


def test_feedback_runs_serially_and_says_so(place: Path) -> None:
    refusing: Any = Backwards()
    data = open_dataset(place / "s.npz", SPECS, skip_bad=True)
    done = calibrate(load(place / "m.onnx"), NAMES, data, threads=1, executor=refusing)
    assert refusing.order == []
    assert done.notes[0].startswith("All samples ran in one process")


def test_a_function_of_a_file_is_opened_again_by_each_worker(place: Path) -> None:
    (place / "made.py").write_text(
        f"import numpy as np\ndef make():\n    for i in range({COUNT}):\n"
        "        yield {'image': np.full((1, 3, 8, 8), i, 'f')}\n"
    )
    data = open_dataset("made.py:make", SPECS, base=place)
    opened = pickle.loads(pickled(data))()
    assert [s.index for s in opened] == list(range(COUNT))
    model = load(place / "m.onnx")
    done = calibrate(model, NAMES, data, threads=1, executor=Pool(workers=2))
    assert done.statistics == calibrate(model, NAMES, data, threads=1).statistics


def test_samples_that_cannot_be_sent_are_an_error(place: Path) -> None:
    class Local:
        description = "samples of this process"
        recipe = None

        def __len__(self) -> int:
            return 3

    data: Any = Local()
    with pytest.raises(UsageError, match="samples of this process cannot be opened by other processes"):
        pickled(data)


def test_a_worker_that_does_not_see_the_model_says_what_to_share(place: Path) -> None:
    class Task:
        model = place / "nowhere.onnx"

    task: Any = Task()
    with pytest.raises(CalibrationError, match=r"does not see .* let ONNXQ_CACHE_DIR name a folder"):
        run_task(task)


def test_pieces_are_even_and_threads_are_divided() -> None:
    assert split([(0, 100)], 2) == [(i, min(i + 13, 100)) for i in range(0, 100, 13)]
    assert split([(3, 5), (9, 10)], 8) == [(3, 4), (4, 5), (9, 10)]
    assert split([], 2) == []
    assert (threads_each(8, 2), threads_each(3, 2), threads_each(1, 4)) == (4, 1, 1)


def test_no_scheduler_is_an_error() -> None:
    with pytest.raises(UsageError, match="no Dask scheduler answers at nonsense"), Pool(cluster="nonsense://x").open():
        pass


KILLER = """
import os, signal
import numpy as np
from pathlib import Path
HERE = Path(__file__).parent
class Samples:
    '''The first process that comes to sample 9 is killed there.'''
    def __len__(self):
        return COUNT
    def __iter__(self):
        for index in range(COUNT):
            if index == 9:
                try:
                    os.close(os.open(HERE / "killed", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    pass
                else:
                    (HERE / "victim").write_text(str(os.getpid()))
                    os.kill(os.getpid(), signal.SIGKILL)
            yield {"image": np.random.default_rng(index).standard_normal((1, 3, 8, 8)).astype(np.float32)}
def make():
    return Samples()
"""


@pytest.mark.filterwarnings("ignore")  # Dask's own, about a worker that is gone
def test_a_dask_worker_that_is_killed_loses_nothing(place: Path) -> None:
    distributed = pytest.importorskip("distributed")
    (place / "killer.py").write_text(KILLER.replace("COUNT", str(COUNT)))
    data = open_dataset("killer.py:make", SPECS, base=place)
    model = load(place / "m.onnx")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )
    with cluster:
        before = {w.pid for w in cluster.workers.values()}
        done = calibrate(model, NAMES, data, threads=1, executor=Pool(cluster=cluster.scheduler_address))
    victim = int((place / "victim").read_text())
    assert victim in before
    assert victim != os.getpid()
    serial = calibrate(model, NAMES, data, threads=1)
    assert saved(done, place / "a.npz") == saved(serial, place / "b.npz")
    assert done.ran == COUNT
