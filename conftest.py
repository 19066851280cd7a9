"""What holds for notebooks and tests alike, before either imports torch."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core already; the notebooks' kernels inherit it
    os.environ.setdefault("OMP_NUM_THREADS", "1")
