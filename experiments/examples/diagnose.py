"""Why evaluation collapses: three faulty networks as they are diagnosed, and a well one.

Each is trained for a few steps on scikit-learn's digits and is right on the test images by
their own statistics, and wrong by its running ones. `jaxnorm.linen.diagnose` is given
nothing but the network, its variables and test images.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnorm
import jaxnorm.linen as jn
from experiments.harness import data, options
from experiments.harness.console import console, exit_status
from experiments.harness.results import Verdict
from experiments.harness.runs import Run
from jaxnorm import NormReport

NAME = "diagnose"
BATCH, RATE, CLASSES = 128, 2e-3, 10


class Network(nn.Module):
    """Two dense layers of 64 behind which there are norms, and one of logits."""

    norm: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for _ in range(2):
            x = nn.relu(self.norm()(nn.Dense(64)(x), train=train))
        return nn.Dense(CLASSES)(x)


class Case(NamedTuple):
    """One network.

    Attributes:
      model: the network.
      steps: how many it is trained for.
      last: how many of these, at the end, are of sorted data.
      shown: `shown(images)`, in evaluation.
      expected: the fault, by the norms; none where all is well.
    """

    model: Network
    steps: int
    last: int
    shown: Callable[[np.ndarray], np.ndarray]
    expected: dict[str, str]


def _as_trained(images: np.ndarray) -> np.ndarray:
    return images


def _unscaled(images: np.ndarray) -> np.ndarray:
    return 16 * images


BOTH = ("BatchNorm_0", "BatchNorm_1")


def _norm(**arguments: Any) -> Callable[[], nn.Module]:
    return lambda: jn.BatchNorm(**arguments)


def cases() -> dict[str, Case]:
    """The networks by what is done wrong with them."""
    warm = Network(_norm(estimator=jaxnorm.ema(0.99, warmup=True)))
    return {
        "evaluated after 20 steps": Case(
            Network(_norm()), 20, 0, _as_trained, dict.fromkeys(BOTH, "immature")
        ),
        "momentum as torch has it": Case(
            Network(_norm(momentum=0.01)),
            100,
            3,
            _as_trained,
            dict.fromkeys(BOTH, "momentum swapped"),
        ),
        "images not scaled": Case(warm, 100, 0, _unscaled, {"BatchNorm_0": "stale"}),
        "well": Case(warm, 100, 0, _as_trained, {}),
    }


def order(labels: np.ndarray, case: Case, seed: int) -> np.ndarray:
    """The samples of each step, (steps, batch); at the end as sorted data has them."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(labels), (case.steps, BATCH))
    if case.last:
        zeros = np.flatnonzero(labels == 0)
        drawn[-case.last :] = random.choice(zeros, (case.last, BATCH))
    return drawn


def train(case: Case, dataset: data.Dataset, seed: int) -> dict[str, Any]:
    """The variables after training."""
    images, labels = jnp.asarray(dataset.train_images), jnp.asarray(dataset.train_labels)
    optimizer = optax.adam(RATE)
    variables = case.model.init(jax.random.key(seed), images[:2], train=False)

    def loss(params: Any, statistics: Any, batch: jax.Array) -> tuple[jax.Array, Any]:
        logits, updates = case.model.apply(
            {"params": params, "batch_stats": statistics},
            images[batch],
            train=True,
            mutable=["batch_stats"],
        )
        of = optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch])
        return jnp.mean(of), updates["batch_stats"]

    def step(state: tuple, batch: jax.Array) -> tuple[tuple, None]:
        params, statistics, optimizing = state
        gradient, statistics = jax.grad(loss, has_aux=True)(params, statistics, batch)
        updates, optimizing = optimizer.update(gradient, optimizing)
        return (optax.apply_updates(params, updates), statistics, optimizing), None

    start = variables["params"], variables["batch_stats"]
    state = (*start, optimizer.init(start[0]))
    batches = jnp.asarray(order(dataset.train_labels, case, seed))
    run_through = jax.jit(functools.partial(jax.lax.scan, step))
    (params, statistics, _), _ = run_through(state, batches)
    return {"params": params, "batch_stats": statistics}


def accuracies(case: Case, variables: Any, dataset: data.Dataset) -> tuple[float, float]:
    """On the test images, in percent: by their own statistics, and by the running ones."""
    images = case.shown(dataset.test_images)
    by_batch, _ = case.model.apply(variables, images, train=True, mutable=["batch_stats"])
    by_running: Any = case.model.apply(variables, images, train=False)
    of_batch, of_running = (
        float(100 * np.mean(np.argmax(logits, -1) == dataset.test_labels))
        for logits in (by_batch, by_running)
    )
    return of_batch, of_running


def verdict(name: str, case: Case, report: NormReport) -> Verdict:
    """Whether it is told of exactly the norms that are faulty."""
    found = {each.norm: each.fault for each in report.diagnoses}
    expected = ", ".join(f"{fault} at {norm}" for norm, fault in case.expected.items())
    claim = f"{name}: {expected or 'nothing'} is what is found"
    return Verdict(claim, (), found == case.expected, str(found or "nothing"))


def together(reports: dict[str, NormReport]) -> NormReport:
    """One report of the norms of all networks, for one figure."""
    norms = [
        dataclasses.replace(norm, name=f"{name}:\n{norm.name}")
        for name, report in reports.items()
        for norm in report.norms
    ]
    diagnoses = [
        each._replace(norm=f"{name}:\n{each.norm}")
        for name, report in reports.items()
        for each in report.diagnoses
    ]
    return NormReport(tuple(norms), next(iter(reports.values())).gap, tuple(diagnoses))


def printed(name: str, report: NormReport, accuracy: tuple[float, float]) -> str:
    """A network's part of the text."""
    by_batch, by_running = accuracy
    return (
        f"{name}: {by_batch:.0f} % right by the batch's statistics, {by_running:.0f} % by "
        f"the running ones\n\n{report}\n"
    )


def parser() -> options.Parser:
    """The options of this experiment."""
    made = argparse.ArgumentParser(
        prog=f"python -m experiments {NAME}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--seed", type=int, default=0, help="of weights and batches (0)")
    options.add_folder(made, NAME, "the text, the figure and the numbers")
    return made


def run(arguments: Sequence[str]) -> None:
    """Trains, diagnoses, prints; takes seconds, and so keeps nothing to resume."""
    chosen = parser().parse_args(arguments)
    dataset = data.load("digits")
    settings = {"experiment": NAME, "seed": chosen.seed, "data": dataset.describe()}
    folder = Run(chosen.out, settings, restart=chosen.restart)
    reports, texts, verdicts, measured = {}, [], [], {}
    for name, case in cases().items():
        variables = train(case, dataset, chosen.seed)
        batches = list(case.shown(dataset.test_images[: 2 * BATCH]).reshape(2, BATCH, -1))
        reports[name] = jn.diagnose(case.model, variables, batches, activation="relu")
        accuracy = accuracies(case, variables, dataset)
        measured[name] = dict(zip(("batch", "running"), accuracy, strict=True))
        texts.append(printed(name, reports[name], accuracy))
        verdicts.append(verdict(name, case, reports[name]))
        console.print(texts[-1])
    together(reports).plot(folder.figure)
    text = folder.folder / "diagnoses.txt"
    text.write_text("\n".join(texts), encoding="utf-8")
    folder.finish(measured, [each.as_dict() for each in verdicts])
    for each in verdicts:
        console.print(f"{each.word}  {each.claim}")
    console.print(f"text: {text}\nfigure: {folder.figure}\nnumbers: {folder.result}")


def main(arguments: Sequence[str]) -> int:
    """The status of the process: 0, or 2 if refused, or 130 if interrupted."""
    return exit_status(lambda: run(arguments))
