"""Passes until memorisation as a function of the number of tracks, from trainings of which some never reached it.

Model: log(onset) = a + b log(x) + σ ε, ε standard normal; a training without onset contributes the probability that its
onset lies beyond its last pass (Tobin, Econometrica 26, 1958; right-censored). Maximum likelihood.
"""

import math

import numpy as np
from scipy import optimize, special, stats

LEVEL = 0.95
HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)
FAR, FAR_SECONDS = 86, 240.0  # MUSDB18's training tracks, and about their mean length
LEAST_SIGMA = 0.03  # an onset is known to within an evaluation
TOO_WIDE = 10.0  # ratio of an interval's ends, or of two predictions, above which nothing is determined


def fit(x, passes, censored, at):
    """Return the fit and its prediction at `at`, or None where fewer than three onsets or one value of x are left, or
    the likelihood has no maximum.

    x: tracks or minutes; passes: of the onset, or of the last evaluation where `censored`. Returns {"a", "b", "b_low",
    "b_high" (profile likelihood), "sigma", "p_constant" (likelihood-ratio test of b = 0), "prediction", "low", "high"
    (of one more training, by the Hessian), "runs", "censored"}.
    """
    x, y, censored = np.log(np.asarray(x, float)), np.log(np.asarray(passes, float)), np.asarray(censored, bool)
    if (~censored).sum() < 3 or np.ptp(x) == 0:
        return None

    def sigma_of(width):
        return LEAST_SIGMA + math.exp(min(width, 50.0))

    def loss(a, b, width):  # negative log-likelihood
        sigma = sigma_of(width)
        z = (y - a - b * x) / sigma
        seen = -0.5 * (z[~censored] @ z[~censored]) - (~censored).sum() * (math.log(sigma) + HALF_LOG_2_PI)
        return -(seen + special.log_ndtr(-z[censored]).sum())

    start = [*np.polyfit(x, y, 1)[::-1], math.log(np.std(y) / 2 + 0.1)]
    best = _minimum(lambda p: loss(*p), start)
    constant = _minimum(lambda p: loss(p[0], 0.0, p[1]), [y.mean(), math.log(np.std(y) + 0.1)])
    a, b, width = best.x

    def profile(slope):  # twice the loss of fixing b, less what the interval allows
        fixed = _minimum(lambda p: loss(p[0], slope, p[1]), [a + (b - slope) * x.mean(), width])
        return 2 * (fixed.fun - best.fun) - stats.chi2.ppf(LEVEL, 1)

    hessian = _hessian(lambda p: loss(*p), best.x)
    if not np.isfinite(hessian).all():
        return None
    covariance = np.linalg.pinv(hessian)
    here = np.array([1.0, math.log(at), 0.0])
    spread = math.sqrt(max(here @ covariance @ here, 0) + sigma_of(width) ** 2)
    middle, half = here @ best.x, stats.norm.ppf((1 + LEVEL) / 2) * spread
    return {
        "a": a,
        "b": b,
        "b_low": _crossing(profile, b, -1),
        "b_high": _crossing(profile, b, 1),
        "sigma": sigma_of(width),
        "p_constant": float(stats.chi2.sf(max(2 * (constant.fun - best.fun), 0), 1)),
        "prediction": _exp(middle),
        "low": _exp(middle - half),
        "high": _exp(middle + half),
        "runs": len(y),
        "censored": int(censored.sum()),
    }


def determined(*fits):
    """Whether the predictions of all fits agree within `TOO_WIDE`, and each interval spans no more."""
    if not fits or None in fits:
        return False
    middles = [found["prediction"] for found in fits]
    widest = max(found["high"] / max(found["low"], 1e-300) for found in fits)
    return max(widest, max(middles) / min(middles)) <= TOO_WIDE


def _minimum(function, start):
    with np.errstate(all="ignore"):
        found = optimize.minimize(function, start, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-10})
        return optimize.minimize(function, found.x, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-10})


def _hessian(function, point, step=1e-3):
    """Second differences of `function`."""
    n, eye = len(point), np.eye(len(point)) * step
    value = lambda i, j, s, t: function(point + s * eye[i] + t * eye[j])  # noqa: E731
    return np.array(
        [
            [
                (value(i, j, 1, 1) - value(i, j, 1, -1) - value(i, j, -1, 1) + value(i, j, -1, -1)) / (4 * step**2)
                for j in range(n)
            ]
            for i in range(n)
        ]
    )


def _crossing(profile, slope, sign):
    """Where `profile` becomes positive, going from `slope` up or down; infinite if it never does."""
    width = 0.1
    while not profile(slope + sign * width) >= 0:  # NaN far away
        width *= 2
        if width > 100:
            return sign * math.inf
    low, high = (slope, slope + width) if sign > 0 else (slope - width, slope)
    return optimize.brentq(profile, low, high, xtol=1e-3)


def _exp(value):
    return math.exp(min(value, 700.0))
