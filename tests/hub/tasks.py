"""Tasks on data sets that the hub of a test holds, by name: ``hub.tasks:PAIRS``."""

from bench.tasks.sts import STS

PAIRS = STS(name="pairs", data="org/pairs", config="en")
PRIVATE = STS(name="private", data="org/secret-pairs", config="en")
