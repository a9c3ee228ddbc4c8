"""The linear classifiers that probes and taggers share."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.tasks.similarity import unit


def classify(x: NDArray[np.float32], y: NDArray[Any], test: NDArray[np.float32]) -> NDArray[Any]:
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
    # On matrices this small threads wait for each other: 40 times slower on a busy machine.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # a few texts a class
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(
            x.astype(np.float64), y
        )
        return np.asarray(probe.predict(test.astype(np.float64)))


_SCALE = 20.0
"""Factor of the cosines: a temperature of 0.05."""


def classify_towards(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    test: NDArray[np.float32],
    start: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Return the classes (n,) from a logistic regression regularised towards given weights.

    Vectors are taken from the mean of the training vectors, and as directions. What is minimised is
    the sum of the cross-entropies and half the squared distance of the weights from where they
    start: zeros make it an ordinary logistic regression (C = 1, no intercept).

    Args:
        x: Training vectors (m, dim).
        y: Their classes (m,), numbers from 0.
        test: Test vectors (n, dim).
        start: What each class's weights are drawn to (classes, dim).
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax
    from threadpoolctl import threadpool_limits

    seen, asked = (
        _SCALE * unit((vectors - x.mean(axis=0)).astype(np.float64)) for vectors in (x, test)
    )
    wanted = np.eye(len(start))[y]
    origin = start.astype(np.float64)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(origin.shape)
        logp = log_softmax(seen @ weights.T, axis=1)
        gradient = (np.exp(logp) - wanted).T @ seen + weights - origin
        return -float((logp * wanted).sum()) + float(
            ((weights - origin) ** 2).sum()
        ) / 2, gradient.ravel()

    with threadpool_limits(1):
        found = minimize(
            loss, origin.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 1000}
        )
    return np.asarray((asked @ found.x.reshape(origin.shape).T).argmax(axis=1), np.int64)
