"""What every test needs: no surprises from the network, archives kept between runs."""

import os

from hypothesis import settings

# No time limit an example, since others may share the machine; and the same examples on every run: a failure is no matter of luck.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any library reads it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
