"""Settings of all tests: no network, and the same examples of hypothesis in every run."""

import os
import signal

from hypothesis import settings

# No time limit for an example, since the machine may be shared.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# A shell lets a job with `&` ignore Ctrl-C, and so would the commands that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any library reads it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # on tiny models further threads only wait
