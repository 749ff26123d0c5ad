"""Training of many networks of any architecture in parallel processes."""

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from aisec_lab.data import Dataset
from aisec_lab.models.layers import Architecture
from aisec_lab.models.training.fit import Fit, Objective
from aisec_lab.models.training.recipe import TrainingRecipe

State = dict[str, np.ndarray]
_rows: list[Dataset] = []  # the dataset of a worker, which is sent once, not with each task


def fit_in_parallel(
    architecture: Architecture,
    dataset: Dataset,
    included: Tensor,
    objective: Objective | TrainingRecipe,
    *,
    fit: Fit,
    seeds: Sequence[int],
    workers: int = 1,
) -> list[nn.Sequential]:
    """Train a classifier on each of K sets of rows, several at a time.

    A model depends on its rows and its seed alone, to the bit, since each is trained on one thread. Workers are spawned
    processes: a script that uses more than one needs `if __name__ == "__main__"`.

    Args:
        architecture: of all models.
        dataset: all rows (N, *shape).
        included: which rows each model is trained on (K, N), bool.
        objective: losses or a recipe; it is pickled, as are architecture and fit.
        fit: the training loop.
        seeds: K integers; each seeds the initial weights and the training of a model.
        workers: number of processes; 1 trains in this process.

    Returns:
        K classifiers in evaluation mode, on the CPU.

    Raises:
        ValueError: `included` or `seeds` of another shape, a model without rows, or fewer than one worker.
        BrokenProcessPool: a worker was killed, for example for lack of memory. Errors of training are raised as they
            are.
    """
    if included.dtype != torch.bool or included.shape != (len(seeds), len(dataset)) or not included.any(1).all():
        raise ValueError(
            f"included must be bool ({len(seeds)}, {len(dataset)}), seeds by rows, with a row for each model, got "
            f"{included.dtype} {tuple(included.shape)}"
        )
    if workers < 1:
        raise ValueError(f"there must be at least one worker, got {workers}")
    train = partial(_trained, architecture, objective, fit)
    tasks = [(rows.nonzero().squeeze(1).numpy(), seed) for rows, seed in zip(included, seeds, strict=True)]
    if workers == 1:
        states = _here(train, dataset, tasks)
    else:
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads, half of them locked
        arrays = (dataset.x.numpy(), dataset.y.numpy(), dataset.classes, dataset.name, dataset.features)
        with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=arrays) as pool:
            states = list(tqdm(pool.map(train, tasks), total=len(tasks), mininterval=0.5, unit="model", desc="fit"))
    return [_restored(architecture, dataset, state) for state in states]


def _here(train: partial[State], dataset: Dataset, tasks: list[tuple[np.ndarray, int]]) -> list[State]:
    """Train in this process, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    _rows.append(dataset)
    try:
        return [train(task) for task in tasks]
    finally:
        _rows.pop()
        torch.set_num_threads(threads)


def _begin(x: np.ndarray, y: np.ndarray, classes: tuple[str, ...], name: str, features: tuple[str, ...]) -> None:
    """Initialise a worker: one thread, the dataset, and exit when the parent process ends."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _rows.append(Dataset(torch.from_numpy(x), torch.from_numpy(y), classes, name, features))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _trained(
    architecture: Architecture, objective: Objective | TrainingRecipe, fit: Fit, task: tuple[np.ndarray, int]
) -> State:
    rows, seed = task
    generator = torch.Generator().manual_seed(seed)
    dataset = _rows[-1]
    model = architecture(dataset.shape, len(dataset.classes), generator=generator)
    fit(model, dataset.subset(torch.from_numpy(rows)), objective, generator=generator)
    return {name: value.numpy() for name, value in model.state_dict().items()}


def _restored(architecture: Architecture, dataset: Dataset, state: State) -> nn.Sequential:
    model = architecture(dataset.shape, len(dataset.classes), generator=torch.Generator())
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return model.eval()
