"""Fabricated results of studies."""

import base64

from experiments.harness.runs import read_sealed, write_sealed

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU"
    "5ErkJggg=="
)
DATA = {"name": "mnist5k", "train": [4000, 784], "test": [1000, 784], "classes": 10}


def verdict(rows, passed, claim="it is <so> | not so", evidence="5/5 seeds & more"):
    return {"claim": claim, "rows": rows, "passed": passed, "evidence": evidence}


def put(folder, name, *verdicts, quick=False, jax="0.10.2"):
    """Writes the files that a run of the study leaves."""
    of = folder / name
    of.mkdir(parents=True)
    result = {
        "settings": {"experiment": name, "quick": quick, "seeds": 5, "data": DATA},
        "versions": {"jaxnorm": "0.1.0", "jax": jax},
        "code": "0123456789abcdef",
        "device": "cpu",
        "notes": ["a note"],
        "seconds": 90.0,
        "measurements": {"unread": [1.0]},
        "table": {"title": "of all", "headings": ["arm", "%"], "rows": [["a & b", "91"]]},
        "verdicts": list(verdicts),
    }
    write_sealed(of / "result.json", result)
    (of / "figure.png").write_bytes(PIXEL)


def alter(path, change):
    """Changes a stored result as a program would, with a new checksum."""
    content = read_sealed(path)
    change(content)
    path.unlink()
    write_sealed(path, content)
