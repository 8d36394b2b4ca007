"""Why evaluation collapses: diagnoses of three faulty networks and of a healthy one.

Each network is trained for a few steps on scikit-learn's digits. The faulty ones are right
on the test images with the images' own statistics, and wrong with the running statistics.
`jaxnorm.linen.diagnose` receives only the network, its variables and test images.
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
from experiments.harness import argument_types, data, options
from experiments.harness.console import console, exit_status
from experiments.harness.results import Verdict
from experiments.harness.runs import Run
from jaxnorm import NormReport

NAME = "diagnose"
BATCH, RATE, CLASSES = 128, 2e-3, 10


class Network(nn.Module):
    """Two dense layers of 64, each followed by a norm, and one for the logits."""

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
      steps: number of training steps.
      last: how many of them, at the end, use sorted data.
      shown: `shown(images)`, the images used in evaluation.
      expected: the fault expected at each norm; empty for a healthy network.
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
    """Returns the networks, by what is wrong with them."""
    warm = Network(_norm(estimator=jaxnorm.ema(0.99, warmup=True)))
    return {
        "evaluated after 20 steps": Case(
            Network(_norm()), 20, 0, _as_trained, dict.fromkeys(BOTH, "too few updates")
        ),
        "momentum as torch has it": Case(
            Network(_norm(momentum=0.01)),
            100,
            3,
            _as_trained,
            dict.fromkeys(BOTH, "momentum swapped"),
        ),
        "images not scaled": Case(
            warm, 100, 0, _unscaled, {"BatchNorm_0": "statistics mismatch"}
        ),
        "well": Case(warm, 100, 0, _as_trained, {}),
    }


def order(labels: np.ndarray, case: Case, seed: int) -> np.ndarray:
    """Returns the samples of each step, (steps, batch); the last from sorted data."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(labels), (case.steps, BATCH))
    if case.last:
        zeros = np.flatnonzero(labels == 0)
        drawn[-case.last :] = random.choice(zeros, (case.last, BATCH))
    return drawn


def train(case: Case, dataset: data.Dataset, seed: int) -> dict[str, Any]:
    """Returns the variables after training."""
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
    """Returns test accuracy in percent, with the images' own and running statistics."""
    images = case.shown(dataset.test_images)
    by_batch, _ = case.model.apply(variables, images, train=True, mutable=["batch_stats"])
    by_running: Any = case.model.apply(variables, images, train=False)
    of_batch, of_running = (
        float(100 * np.mean(np.argmax(logits, -1) == dataset.test_labels))
        for logits in (by_batch, by_running)
    )
    return of_batch, of_running


def verdict(name: str, case: Case, report: NormReport) -> Verdict:
    """Checks that exactly the faulty norms are reported."""
    found = {each.norm: each.fault for each in report.diagnoses}
    expected = ", ".join(f"{fault} at {norm}" for norm, fault in case.expected.items())
    claim = f"{name}: {expected or 'nothing'} is what is found"
    return Verdict(claim, (), found == case.expected, str(found or "nothing"))


def together(reports: dict[str, NormReport]) -> NormReport:
    """Merges the reports of all networks into one, for one figure."""
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
    """Returns a network's part of the text."""
    by_batch, by_running = accuracy
    return (
        f"{name}: {by_batch:.0f} % right by the batch's statistics, {by_running:.0f} % by "
        f"the running ones\n\n{report}\n"
    )


def parser() -> options.Parser:
    """Returns the parser of this experiment's options."""
    made = argparse.ArgumentParser(
        prog=f"python -m experiments {NAME}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--seed",
        type=argument_types.count(2**31 - 1, least=0),
        default=0,
        help="for weights and batches (0)",
    )
    options.add_folder(made, NAME, "the text, the figure and the numbers")
    return made


def run(arguments: Sequence[str]) -> None:
    """Trains, diagnoses and prints; takes only seconds, so nothing can be resumed."""
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
    """Returns the exit status: 0, 2 if refused, 130 if interrupted."""
    return exit_status(lambda: run(arguments))
