"""A run: a folder, interruptible work in it, and its result."""

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from rich.progress import Progress, TaskID

import jaxnorm
from experiments.harness import listing
from experiments.harness.console import Interrupted, Refused, console, progress_bar

PACKAGES = ("jaxnorm", "jax", "jaxlib", "flax", "optax", "numpy")


def identity(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns what makes results comparable: settings, versions, code and device."""
    return {
        "settings": settings,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "code": digest_of_code(settings.get("experiment", "")),
        "device": jax.devices()[0].device_kind,
    }


def digest_of_code(name: str) -> str:
    """Returns a hash of the code that an experiment runs.

    That is all of jaxnorm, the harness, the models, and the experiment's own module: not
    only what it imports, which would depend on what was imported before.
    """
    own = listing.ROOT.parent.joinpath(*listing.module(name).split("."))
    library = Path(jaxnorm.__file__).parent
    digest = hashlib.sha256()
    for folder in (library, listing.ROOT / "harness", listing.ROOT / "models", own):
        single = folder.with_suffix(".py")
        for path in [single] if single.is_file() else sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder.parent)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Run:
    """A folder that holds one run: the state to resume from in `.run`, then its result.

    Opening it detects obstacles before anything is computed: a folder that is not
    writable, a run with other settings or versions, or files that do not belong to a
    run. Such files are never touched.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        *,
        restart: bool,
        progress: Progress | None = None,
    ):
        """Opens or makes the folder.

        Args:
          folder: the folder of the run.
          settings: what makes its results comparable, besides versions and device.
          restart: discards an earlier run in the folder.
          progress: a display to add its bar to; defaults to one of its own.
        """
        self.folder = folder
        self._progress = progress
        self.identity = identity(settings)
        self.figure = folder / "figure.png"
        self.result = folder / "result.json"
        self._record = folder / ".run" / "record.json"
        self._notes = folder / ".run" / "notes.json"
        self._parts = folder / ".run" / "parts"
        self._checkpoints = folder.absolute() / ".run" / "checkpoint"
        self._make_writable()
        self._claim(restart)

    def _make_writable(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise Refused(
                f"{self.folder}: cannot be written to ({error.strerror}); choose another "
                "folder with --out."
            ) from error

    def _claim(self, restart: bool) -> None:
        """Claims the folder for this run, or checks that it already belongs to it."""
        known = next((each for each in (self.result, self._record) if each.exists()), None)
        if known is None:
            self._refuse_what_is_of_no_run()
        else:
            self._refuse_another_run(known, restart)
        if restart:
            self.result.unlink(missing_ok=True)
            shutil.rmtree(self._record.parent, ignore_errors=True)
        if restart or known is None:
            self._checkpoints.mkdir(parents=True)
            write_sealed(self._record, self.identity)

    def _refuse_what_is_of_no_run(self) -> None:
        for each in (self.figure, self._record.parent):
            if each.exists():
                raise Refused(
                    f"{each}: exists but belongs to no run; move it away, or choose "
                    "another folder with --out."
                )

    def _refuse_another_run(self, known: Path, restart: bool) -> None:
        record = _read_record(known, damaged=restart)
        differences = _differences(record, self.identity)
        if differences and not restart:
            raise Refused(
                f"{self.folder}: holds a run that differs ({'; '.join(differences)}); "
                "choose another folder with --out, or discard it with --restart."
            )

    @property
    def measurements(self) -> dict[str, Any] | None:
        """The measurements of a finished run, as arrays; None while it is unfinished."""
        return read_measurements(self.result) if self.result.exists() else None

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers must know, in the order in which it was noted."""
        return self._noted("notes", [])

    @property
    def seconds(self) -> float:
        """How long the work took, summed over interruptions."""
        return self._noted("seconds", 0.0)

    def note(self, text: str) -> None:
        """Prints and stores a note once; a run that is resumed still has it."""
        if text not in self.notes:
            console.print(text)
            self._keep(notes=[*self.notes, text])

    def _noted(self, name: str, default: Any) -> Any:
        path = self.result if self.result.exists() else self._notes
        return read_sealed(path).get(name, default) if path.exists() else default

    def _keep(self, **noted: Any) -> None:
        known = {"notes": self.notes, "seconds": self.seconds}
        write_sealed(self._notes, known | noted)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Adds the time spent in the context to the run's seconds."""
        before = time.monotonic()
        try:
            yield
        finally:
            self._keep(seconds=round(self.seconds + time.monotonic() - before, 1))

    def finish(
        self,
        measurements: dict[str, Any],
        verdicts: list[dict[str, Any]],
        table: dict[str, Any] | None = None,
    ) -> None:
        """Writes the result, and deletes the state to resume from."""
        result = self.identity | {
            "notes": self.notes,
            "seconds": self.seconds,
            "measurements": measurements,
            "table": table,
            "verdicts": verdicts,
        }
        write_sealed(self.result, result)
        shutil.rmtree(self._record.parent, ignore_errors=True)

    def fold(
        self,
        advance: Callable[[Any, int], Any],
        state: Any,
        total: int,
        heading: str,
        line: Callable[[Any, int], str],
        *,
        word: str = "training",
    ) -> Any:
        """Advances the state `total` times, from the last checkpoint if there is one.

        Args:
          advance: `advance(state, step) -> state`, a pure function, so that a resumed run
            gives the same result as an uninterrupted one, bit for bit.
          state: a pytree of arrays whose shapes and dtypes do not change.
          total: the number of steps.
          heading: shown above the lines.
          line: `line(state, step) -> str`, shown after each step.
          word: the label beside the progress bar.
        """
        # Saved before the next step begins, so that a failure can be traced to its step.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False
        )
        with (
            ocp.CheckpointManager(self._checkpoints, options=options) as manager,
            self._bar() as progress,
            self._timed(),
        ):
            latest = manager.latest_step()
            first = 0 if latest is None else latest + 1
            if latest is not None:
                state = self._restore(manager, latest, state)
                progress.console.print(f"resuming after {first} of {total} steps")
            progress.console.print(heading)
            task = progress.add_task(word, total=total, completed=first)
            done = first
            try:
                for step in range(first, total):
                    state = jax.block_until_ready(advance(state, step))
                    self._save(manager, step, state)
                    done = step + 1
                    progress.console.print(line(state, step))
                    progress.advance(task)
            except KeyboardInterrupt:
                raise Interrupted(
                    f"interrupted after {done} of {total} steps; the same command resumes."
                ) from None
            self._done(progress, task)
        return state

    def collect(
        self,
        parts: Mapping[str, Callable[[], dict[str, Any]]],
        heading: str,
        line: Callable[[str, dict[str, Any]], str],
    ) -> dict[str, dict[str, Any]]:
        """Computes one part after another, skipping those computed before.

        Args:
          parts: functions by name, with names unique in the run; each returns arrays by
            name, the same at every call.
          heading: shown above the lines.
          line: `line(name, part) -> str`, shown after each part.

        Returns:
          The results as float64 arrays, with NaN for non-finite values.
        """
        self._parts.mkdir(exist_ok=True)
        found: dict[str, dict[str, Any]] = {}
        with self._bar() as progress, self._timed():
            progress.console.print(heading)
            task = progress.add_task("measuring", total=len(parts))
            for place, (name, compute) in enumerate(parts.items()):
                path = self._parts / f"{quote(name, safe=' ')}.json"
                if not path.exists():
                    try:
                        write_sealed(path, {"measurements": compute()})
                    except KeyboardInterrupt:
                        raise Interrupted(
                            f"interrupted after {place} of {len(parts)} parts; the same "
                            "command resumes."
                        ) from None
                found[name] = read_measurements(path)
                progress.console.print(line(name, found[name]))
                progress.advance(task)
            self._done(progress, task)
        return found

    def _done(self, progress: Progress, task: TaskID) -> None:
        """Removes a finished bar from a shared display, but not from one of its own."""
        if self._progress is not None:
            progress.remove_task(task)

    def _bar(self) -> Any:
        return progress_bar() if self._progress is None else nullcontext(self._progress)

    def _save(self, manager: ocp.CheckpointManager, step: int, state: Any) -> None:
        try:
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    digest=ocp.args.JsonSave({"sha256": digest_of(state)}),
                ),
            )
        except Exception as error:  # orbax and its dependencies raise many kinds
            raise Refused(
                f"{self._checkpoints}: cannot be written ({_first_line(error)}); free some "
                "space, and the same command resumes."
            ) from error

    def _restore(self, manager: ocp.CheckpointManager, step: int, like: Any) -> Any:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            found: Any = manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract), digest=ocp.args.JsonRestore()
                ),
            )
            kept = found.digest["sha256"]
        except Exception as error:
            raise Refused(
                f"{self._checkpoints}: cannot be read ({_first_line(error)}); start over "
                "with --restart."
            ) from error
        if kept != digest_of(found.state):
            raise Refused(
                f"{self._checkpoints / str(step)}: is damaged, as its checksum differs; "
                "start over with --restart."
            )
        return found.state


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes the whole file or nothing: an interrupt leaves no partial file.

    A file that already has this content is left alone.
    """
    text = _as_json(content)
    if path.exists() and _read_json(path) == json.loads(text):
        return
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def digest_of(state: Any) -> str:
    """Returns a hash of the values, dtypes and shapes of a pytree of arrays."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        )
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


SEAL = "sha256"


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """As `write_json`, with a checksum of the content, by which damage is noticed."""
    write_json(path, content | {SEAL: _seal(json.loads(_as_json(content)))})


def read_sealed(path: Path) -> dict[str, Any]:
    """Reads what `write_sealed` wrote; refuses it if it has changed."""
    content = _read_json(path)
    if content.pop(SEAL, None) != _seal(content):
        raise Refused(
            f"{path}: was changed, damaged, or written by another version, as its checksum "
            "differs; move it away, or start over with --restart."
        )
    return content


def _seal(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _as_json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, default=_as_list, allow_nan=False) + "\n"


def read_measurements(path: Path) -> dict[str, Any]:
    """Reads the measurements passed to `Run.finish` from the file that it wrote."""
    content = read_sealed(path)
    if not isinstance(content.get("measurements"), dict):
        raise Refused(
            f"{path}: has no measurements; move it away, or start over with --restart."
        )
    return jax.tree.map(
        lambda values: np.asarray(values, float),
        content["measurements"],
        is_leaf=lambda each: each is None or isinstance(each, list),
    )


def _as_list(array: Any) -> Any:
    """Returns nested lists with None for non-finite values, which JSON cannot express."""
    values = np.asarray(array).astype(object)
    values[~np.isfinite(array)] = None
    return values.tolist()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: is not JSON ({error}); move it away.") from error
    return content if isinstance(content, dict) else {}


def _read_record(path: Path, *, damaged: bool) -> dict[str, Any]:
    """Reads the identity from a record or a result, which may be `damaged`."""
    content = _read_json(path) if damaged else read_sealed(path)
    names = ("settings", "versions", "device")
    if not all(name in content for name in names):
        raise Refused(
            f"{path}: is not the record of a run; move it away, or choose another folder "
            "with --out."
        )
    return {name: content[name] for name in names} | {"code": content.get("code")}


def _differences(old: Any, new: Any, where: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        return [
            each
            for name in names
            for each in _differences(
                old.get(name), new.get(name), f"{where} {name}".strip()
            )
        ]
    return [] if old == new else [f"{where}: {old} there, {new} now"]
