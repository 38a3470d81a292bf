"""Two tests run at a time (pytest -n 2): one thread each, or the threads of both would spin for the same cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
