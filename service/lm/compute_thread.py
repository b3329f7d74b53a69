"""Threads that compute with as many CPU threads as torch was told, whatever OMP_NUM_THREADS says.

`torch.set_num_threads` holds in the thread that calls it. In another thread the first products of matrices use as many threads as
OMP_NUM_THREADS names, or else all CPUs, until some operation reminds that thread of the number. The bytes of a fit must depend on
neither.
"""

import threading

import torch


def keep_thread_count() -> None:
    """Let products of matrices in this thread use as many CPU threads as torch was told last, by whichever thread."""
    torch.set_num_threads(torch.get_num_threads())


class ComputeThread(threading.Thread):
    """A thread for tensors, which uses the number of CPU threads that torch was told before the thread began."""

    def run(self) -> None:
        """Do the work of the thread."""
        keep_thread_count()
        super().run()
