"""Instruments that show whether a discriminator has memorised its training tracks.

Four sets of logits, split by track: real and generated stems of training tracks, and of held-out ones. With
s = σ(logit):

- r_t = E[sign D(real train)] (Karras et al., StyleGAN2-ADA, arXiv 2006.06676, equation 1);
- r_v = (E[s real train] − E[s real held-out]) / (E[s real train] − E[s generated train]) (the same, with s in place of
  the raw logits, which also stand as r_v_logit): 0 = no overfitting, 1 = held-out real stems look generated;
- r_f = (E[s generated held-out] − E[s generated train]) / (E[s real train] − E[s generated train]);
- TPR: share of real logits above 0; TNR: share of generated ones below; AUC: the chance that a real logit is above a
  generated one; BCE: the discriminator's loss on the pair of sets.
"""

import numpy as np

SETS = ("real_train", "real_heldout", "fake_train", "fake_heldout")
HISTOGRAM_EDGES = np.linspace(-12, 12, 49)  # logits, clipped


def measure(logits):
    """Figures of four sets of logits {set: array}, as a flat dictionary; a ratio without a denominator is None."""
    logits = {name: np.asarray(logits[name], np.float64).ravel() for name in SETS}
    score = {name: 1 / (1 + np.exp(-values)) for name, values in logits.items()}
    figures = {}
    for name, values in logits.items():
        low, high = np.quantile(values, (0.1, 0.9))
        histogram = np.histogram(np.clip(values, -12, 12), HISTOGRAM_EDGES)[0]
        figures |= {
            f"{name}_mean": values.mean(),
            f"{name}_p10": low,
            f"{name}_p90": high,
            f"{name}_histogram": histogram.tolist(),
        }
    figures |= {
        "r_t": np.sign(logits["real_train"]).mean(),
        "r_v_sigma": _ratio(score, "real_train", "real_heldout"),
        "r_v_logit": _ratio(logits, "real_train", "real_heldout"),
        "r_f": _ratio(score, "fake_heldout", "fake_train"),
    }
    for part in ("train", "heldout"):
        real, fake = logits[f"real_{part}"], logits[f"fake_{part}"]
        figures |= {
            f"tpr_{part}": (real > 0).mean(),
            f"tnr_{part}": (fake < 0).mean(),
            f"auc_{part}": auc(real, fake),
            f"bce_{part}": (np.logaddexp(0, -real).mean() + np.logaddexp(0, fake).mean()) / 2,
        }
    return {
        name: value if value is None or isinstance(value, list) else float(value) for name, value in figures.items()
    }


def _ratio(values, high, low):
    spread = values["real_train"].mean() - values["fake_train"].mean()
    return (values[high].mean() - values[low].mean()) / spread if abs(spread) > 1e-9 else None


def auc(positive, negative):
    """Area under the ROC curve: P(positive > negative), ties counted half (Mann–Whitney)."""
    both = np.concatenate([positive, negative])
    _, place, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    n = len(positive)
    return (ranks[:n].sum() - n * (n + 1) / 2) / (n * len(negative))


def verdict(figures):
    """(word, sentence): what the figures of `measure` say of a discriminator.

    "is too weak": it guesses on its training tracks (mean of TPR and TNR below 0.6). "overfits": half or more of the
    way from real to generated is lost on held-out real stems (r_v on σ ≥ 0.5). "dominates": it is right on held-out
    tracks nearly always (mean of TPR and TNR ≥ 0.95), by skill or by a shortcut. "is healthy": none of these.
    """
    seen, unseen = ((figures[f"tpr_{part}"] + figures[f"tnr_{part}"]) / 2 for part in ("train", "heldout"))
    r_v = figures["r_v_sigma"]
    facts = f"It is right on {seen:.0%} of the patches of its training tracks and on {unseen:.0%} of held-out ones" + (
        f", r_v = {r_v:.2f}".replace("-", "−") if r_v is not None and np.isfinite(r_v) else ""
    )
    if seen < 0.6:
        return "is too weak", f"{facts}: it guesses even on what it has seen."
    if r_v is not None and r_v >= 0.5:
        return "overfits", f"{facts}: real stems that it has not met look generated to it."
    if unseen >= 0.95:
        return "dominates", f"{facts}: it hardly ever errs, on any track, so it has skill or a shortcut, not a memory."
    return "is healthy", f"{facts}: what it knows of its training tracks holds for others too."
