"""The linear classifier that probes and taggers share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def predicted(x: NDArray[np.float32], y: NDArray[Any], test: NDArray[np.float32]) -> NDArray[Any]:
    """Return the classes (n,) a logistic regression on standardised vectors gives the test vectors.

    Args:
        x: Training vectors (m, dim).
        y: Their classes (m,); a single one is given to every test vector.
        test: Test vectors (n, dim).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    if len(np.unique(y)) == 1:
        return np.full(len(test), y[0])
    with threadpool_limits(1):  # on matrices this small threads wait for each other: 40 times slower on a busy machine
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x.astype(np.float64), y)
        return np.asarray(probe.predict(test.astype(np.float64)))
