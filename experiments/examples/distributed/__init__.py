"""The network of the source article trained by several processes, each with its devices.

An example to copy. One mesh spans the devices of all processes; a batch is split over it,
and each process loads only its own rows; parameters and running statistics are on every
device. The step is plain `jax.jit` of the function for a single device: the mean over the
batch is taken over the whole array, wherever its rows are, and XLA inserts the messages.
So batch norm uses the statistics of the whole batch and needs no `axis_name`; that is for
`shard_map`, `pmap` and `vmap`, where a function sees only one shard.

    python -m experiments distributed                  # two processes, started here
    python -m experiments distributed --processes 1    # the reference

Both give the same numbers up to rounding. In float32 the difference grows in training: when
a relu's input rounds to the other side of 0, a gradient changes, and Adam's first steps
have the same size for any gradient. With JAX_ENABLE_X64=1 only the last digits differ.

On several machines, start N processes with the same options, each with its own ID:

    python -m experiments distributed --processes N --process ID --coordinator HOST:PORT

HOST is the machine of process 0, and PORT is a free port on it. A process waits --timeout
seconds for the others. If one dies later, the others are ended: at once if all were started
here, otherwise after --timeout seconds (at least 10) without a sign of life.
"""

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Starts the processes and waits for them; returns the exit status of this one."""
    # Imported late, so that parts of the package can be imported without its dependencies.
    from experiments.examples.distributed import command

    return command.main(arguments)
