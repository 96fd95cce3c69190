"""Instruments that show whether a discriminator has memorised its training tracks.

Four sets of logits, split by track: real and generated stems of training tracks, and of held-out ones. With
s = σ(logit):

- r_t = E[sign D(real train)] (Karras et al., StyleGAN2-ADA, arXiv 2006.06676, equation 1);
- r_v = (E[s real train] − E[s real held-out]) / (E[s real train] − E[s generated train]) (the same, with s in place of
  the raw logits, which also stand as r_v_logit): 0 = no overfitting, 1 = held-out real stems look generated;
- r_f = (E[s generated held-out] − E[s generated train]) / (E[s real train] − E[s generated train]): the same for
  generated stems; r_v + r_f is the share of the distance between real and generated that is lost on held-out tracks;
- TPR: share of real logits above 0; TNR: share of generated ones below; AUC: the chance that a real logit is above a
  generated one; BCE: the discriminator's loss on the pair of sets; right: the mean probability (σ) of the right answer,
  not the share of right answers (that is TPR and TNR): 0.5 when it guesses, near 1 when it is sure and right.
"""

import numpy as np

SETS = ("real_train", "real_heldout", "generated_train", "generated_heldout")
HISTOGRAM_EDGES = np.linspace(-12, 12, 49)  # logits, clipped


PART_METRICS = ("r_t", "r_v_sigma", "r_v_logit", "r_f", "tpr_heldout", "tnr_heldout", "auc_heldout", "bce_heldout")


def pick(logits, count=64):
    """At most `count` of the logits (..., n), evenly spread: so that every sub-discriminator counts alike."""
    n = logits.shape[-1]
    return logits if n <= count else logits[..., [i * n // count for i in range(count)]]


def measure_all(sets, sources):
    """`measure` of all logits, and of every sub-discriminator and stem under "parts" (`PART_METRICS` only).

    sets: {set: {sub-discriminator: array (excerpts, judged, n)}}, judged being 1 (all stems together) or the sources.
    """
    everything = {name: np.concatenate([np.ravel(part) for part in subs.values()]) for name, subs in sets.items()}
    metrics, parts = measure(everything), {}
    for sub in sets[SETS[0]]:
        judged = sets[SETS[0]][sub].shape[1]
        for k, stem in enumerate(sources if judged > 1 else ["all stems"]):
            found = measure({name: subs[sub][:, k] for name, subs in sets.items()})
            parts[f"{sub}, {stem}"] = {name: found[name] for name in PART_METRICS}
    return metrics | {"parts": parts}


def measure(logits):
    """Metrics of four sets of logits {set: array}, as a flat dictionary; a ratio without a denominator is None."""
    logits = {name: np.asarray(logits[name], np.float64).ravel() for name in SETS}
    score = {name: 1 / (1 + np.exp(-values)) for name, values in logits.items()}
    metrics = {}
    for name, values in logits.items():
        low, high = np.quantile(values, (0.1, 0.9))
        histogram = np.histogram(np.clip(values, -12, 12), HISTOGRAM_EDGES)[0]
        metrics |= {
            f"{name}_mean": values.mean(),
            f"{name}_p10": low,
            f"{name}_p90": high,
            f"{name}_histogram": histogram.tolist(),
        }
    metrics |= {
        "r_t": np.sign(logits["real_train"]).mean(),
        "r_v_sigma": _ratio(score, "real_train", "real_heldout"),
        "r_v_logit": _ratio(logits, "real_train", "real_heldout"),
        "r_f": _ratio(score, "generated_heldout", "generated_train"),
    }
    for part in ("train", "heldout"):
        real, generated = logits[f"real_{part}"], logits[f"generated_{part}"]
        metrics |= {
            f"tpr_{part}": (real > 0).mean(),
            f"tnr_{part}": (generated < 0).mean(),
            f"auc_{part}": auc(real, generated),
            f"confidence_{part}": (score[f"real_{part}"].mean() + 1 - score[f"generated_{part}"].mean()) / 2,
            f"bce_{part}": (np.logaddexp(0, -real).mean() + np.logaddexp(0, generated).mean()) / 2,
        }
    return {
        name: value if value is None or isinstance(value, list) else float(value) for name, value in metrics.items()
    }


def _ratio(values, high, low):
    spread = values["real_train"].mean() - values["generated_train"].mean()
    return (values[high].mean() - values[low].mean()) / spread if abs(spread) > 1e-9 else None


def auc(positive, negative):
    """Area under the ROC curve: P(positive > negative), ties counted half (Mann–Whitney)."""
    both = np.concatenate([positive, negative])
    _, place, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    n = len(positive)
    return (ranks[:n].sum() - n * (n + 1) / 2) / (n * len(negative))


def verdict(metrics):
    """(word, sentence): what the metrics of `measure` say of a discriminator.

    "is too weak": it guesses on its training tracks (confidence_train below 0.6). "overfits": held-out tracks lose half
    or more of the gap between real and generated, by real stems alone (r_v on σ) or by both kinds (r_v + r_f).
    "dominates": it is sure and right on held-out tracks (confidence_heldout ≥ 0.95), by skill or by a shortcut, so that
    its gradient fades. "is healthy": none of these.
    """
    seen, unseen, r_v, r_f = (metrics[name] for name in ("confidence_train", "confidence_heldout", "r_v_sigma", "r_f"))
    facts = (
        f"Its mean probability of the right answer is {seen:.0%} on training tracks and {unseen:.0%} on held-out ones"
    )
    if r_v is not None:
        facts += f", r_v = {r_v:.2f} and r_f = {r_f:.2f}".replace("-", "−")
    if seen < 0.6:
        return "is too weak", f"{facts}: it guesses even on what it has seen."
    if r_v is not None and max(r_v, r_v + r_f) >= 0.5:
        return "overfits", f"{facts}: what it has not met looks wrong to it."
    if unseen >= 0.95:
        return "dominates", f"{facts}: it hardly ever errs, on any track, so it has skill or a shortcut, not a memory."
    return "is healthy", f"{facts}: what it knows of its training tracks holds for others too."
