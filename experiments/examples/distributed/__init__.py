"""The network of the source article trained by several processes, each with its devices.

An example to copy. One mesh spans the devices of all processes; a batch is split over it,
and each process loads its own rows alone; parameters and running statistics are on every
device. The step is plain `jax.jit` of the function that one device would run: the mean over
the batch is that over the whole array, wherever its rows are, and XLA inserts the messages.
So batch norm takes the statistics of the whole batch and needs no `axis_name`; that is for
`shard_map`, `pmap` and `vmap`, where a function sees a shard alone.

    python -m experiments distributed                  # two processes, started here
    python -m experiments distributed --processes 1    # the reference

Both give the same numbers to rounding. In float32 that grows in training: a relu's input
that rounds to the other side of 0 changes a gradient, and Adam's first steps have one size,
whatever the gradient's. With JAX_ENABLE_X64=1 it stays at the last digits.

On several machines, start N processes with the same options, each with its own ID:

    python -m experiments distributed --processes N --process ID --coordinator HOST:PORT

HOST is the machine of process 0, and PORT is free there. A process waits --timeout seconds
for the others. If one dies later the others are ended: at once when started here, and
otherwise after as many seconds without a sign of life, but at least 10.
"""

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Starts the processes and waits for them; the status of this one."""
    # Only now: a part of the package can be imported without all that it runs.
    from experiments.examples.distributed import command

    return command.main(arguments)
