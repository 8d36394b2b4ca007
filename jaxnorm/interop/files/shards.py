"""Reads a model whose weights are split over several files, listed in an index."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxnorm.interop.files.checks import check_names, reading, some

ENDING = ".index.json"


def read(
    path: Path, read_file: Callable[[Path], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays of all files in a model.safetensors.index.json, or another such index."""
    with reading(path, "an index of files"):
        index = dict(json.loads(path.read_bytes(), object_pairs_hook=list))
        pairs = [(name, file) for name, file in index["weight_map"]]
        files = sorted({str(file) for _, file in pairs})
    check_names(path, (name for name, _ in pairs))
    outside = [file for file in files if Path(file).name != file or file in (".", "..")]
    if outside:
        raise ValueError(
            f"{path} lists {some(outside)}, outside its own folder; put all files of the "
            "model into one folder, and list them by their names alone."
        )
    found = {file: read_file(path.parent / file) for file in files}
    check_names(path, [name for arrays in found.values() for name in arrays])
    listed = {name: file for name, file in pairs if name in found[file]}
    missing = [name for name, _ in pairs if name not in listed]
    more = [name for arrays in found.values() for name in arrays if name not in listed]
    if missing or more:
        raise ValueError(
            f"{path} and its files differ: {some(missing or more)} "
            f"{'is listed, but not there' if missing else 'is there, but not listed'}; "
            "download all files of one version of the model."
        )
    return {name: found[file][name] for name, file in pairs}
