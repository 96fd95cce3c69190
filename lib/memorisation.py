"""Whether a discriminator has memorised its training tracks: metrics of four sets of logits, and what follows.

A generator that overfits its tracks too makes held-out estimates easier to detect than training ones: r_f turns
negative, r_v + r_f means nothing, and bce_gap shrinks. membership_auc needs no estimates. `diagnose` uses these two:

- membership_auc: the probability that the logit of a recorded training excerpt exceeds that of a recorded held-out one;
  0.5 without memory. Its null is what the same tracks get from discriminators that never heard
  them, since some tracks look more real than others to any discriminator;
- bce_gap: cross-entropy of held-out tracks minus that of training tracks.

The sets are real and generated stems, of training and of held-out tracks. With s = σ(logit) and the gap = E[s real
train] − E[s generated train]:

- r_v: share of the real–generated gap that held-out recordings have lost, (E[s real train] − E[s real held-out]) / gap.
  0: no memorisation; 1: they look generated. On σ it is r_v_sigma; on the logits, as in Karras et al., StyleGAN2-ADA
  (arXiv 2006.06676, equation 1), r_v_logit;
- r_f: the share lost because held-out generated stems look more real, (E[s generated held-out] − E[s generated train])
  / gap; r_v + r_f is the whole share lost;
- r_t: E[sign(logit) real train] (the same equation);
- of training or of held-out tracks: tpr, share of real logits above 0; tnr, share of generated ones below 0; accuracy,
  the mean of both (balanced accuracy); auc, probability that a real logit exceeds a generated one; bce, cross-entropy;
  confidence, mean probability of the right answer (σ of real logits, 1 − σ of generated ones), 0.5 for a discriminator
  that guesses.
"""

import numpy as np

SETS = ("real_train", "real_heldout", "generated_train", "generated_heldout")
PART_METRICS = ("r_t", "r_v_sigma", "r_v_logit", "r_f", "tpr_heldout", "tnr_heldout", "auc_heldout", "bce_heldout")
# What a claimed cure may leave: BCE gap, membership AUC above its null, loss of held-out AUC
ALLOWED = {"gap": 0.15, "memory": 0.05, "auc": 0.02}
HISTOGRAM_EDGES = np.linspace(-12, 12, 49)  # logits beyond are counted in the outer bins


def pick(logits, count=64):
    """Return at most `count` of the logits (..., n), evenly spread, so that all sub-discriminators count alike."""
    n = logits.shape[-1]
    return logits if n <= count else logits[..., [i * n // count for i in range(count)]]


def measure_all(sets, sources):
    """Return `measure` of all logits; under "parts", the `PART_METRICS` of every sub-discriminator and stem.

    sets: {set: {sub-discriminator: array (excerpts, judged, n)}}; judged is 1 (all stems together) or the sources.
    """
    metrics = measure({name: np.concatenate([np.ravel(part) for part in subs.values()]) for name, subs in sets.items()})
    metrics["parts"] = {}
    for sub, logits in sets[SETS[0]].items():
        for k, stem in enumerate(sources if logits.shape[1] > 1 else ["all stems"]):
            found = measure({name: subs[sub][:, k] for name, subs in sets.items()})
            metrics["parts"][f"{sub}, {stem}"] = {name: found[name] for name in PART_METRICS}
    return metrics


def measure(logits):
    """Return the metrics of four sets of logits {set: array}; a ratio over a gap of 0 is None.

    Beside those of the module's docstring: <set>_mean, _p10, _p90 and _histogram of the logits (`HISTOGRAM_EDGES`).
    """
    logits = {name: np.asarray(logits[name], np.float64).ravel() for name in SETS}
    score = {name: 1 / (1 + np.exp(-values)) for name, values in logits.items()}
    metrics = {
        "r_t": np.sign(logits["real_train"]).mean(),
        "r_v_sigma": _ratio(score, "real_train", "real_heldout"),
        "r_v_logit": _ratio(logits, "real_train", "real_heldout"),
        "r_f": _ratio(score, "generated_heldout", "generated_train"),
        "membership_auc": auc(logits["real_train"], logits["real_heldout"]),
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
        metrics[f"accuracy_{part}"] = (metrics[f"tpr_{part}"] + metrics[f"tnr_{part}"]) / 2
    metrics["bce_gap"] = metrics["bce_heldout"] - metrics["bce_train"]
    metrics = {name: value if value is None else float(value) for name, value in metrics.items()}
    for name, values in logits.items():
        metrics[f"{name}_mean"] = float(values.mean())
        metrics[f"{name}_p10"], metrics[f"{name}_p90"] = np.quantile(values, (0.1, 0.9)).tolist()
        metrics[f"{name}_histogram"] = np.histogram(np.clip(values, -12, 12), HISTOGRAM_EDGES)[0].tolist()
    return metrics


def _ratio(values, high, low):
    gap = values["real_train"].mean() - values["generated_train"].mean()
    return (values[high].mean() - values[low].mean()) / gap if abs(gap) > 1e-9 else None


def auc(positive, negative):
    """Return the area under the ROC curve: P(positive > negative), ties counted half (Mann–Whitney)."""
    ordered = np.sort(negative)
    twice = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return twice.sum() / 2 / (len(positive) * len(negative))


OVERFITS_GAP, OVERFITS_MEMBERSHIP = 0.3, 0.1  # least BCE gap, and least membership AUC above its null
DOMINATES, TOO_WEAK = 0.95, 0.6  # balanced accuracy: at least, on held-out tracks; below, on training tracks
IN_A_ROW = 3  # evaluations swing; a median over so many does not


def diagnose(rows):
    """Return (word, onset) of a training, from the metrics of its evaluations in their order (a list of dictionaries).

    "overfits": over the median of three consecutive evaluations, the BCE gap is 0.3 or more and membership_auc lies 0.1
    or more above membership_null (0.5 where that is missing). onset is the index of the first of the first such three,
    else None. "dominates": balanced accuracy of 0.95 or more on held-out tracks. "is too weak": below 0.6 on training
    tracks. These two by the median of the last three evaluations. "is healthy": else.
    """
    gaps = np.array([row["bce_heldout"] - row["bce_train"] for row in rows])
    nulls = [row.get("membership_null") for row in rows]
    nulls = [0.5 if null is None or np.isnan(null) else null for null in nulls]
    above = np.array([row["membership_auc"] for row in rows]) - nulls
    for k in range(len(rows) - IN_A_ROW + 1):
        gap, memory = (np.median(values[k : k + IN_A_ROW]) for values in (gaps, above))
        if gap >= OVERFITS_GAP - 1e-9 and memory >= OVERFITS_MEMBERSHIP - 1e-9:  # up to rounding
            return "overfits", k
    seen, unseen = (
        np.median([(row[f"tpr_{part}"] + row[f"tnr_{part}"]) / 2 for row in rows[-IN_A_ROW:]])
        for part in ("train", "heldout")
    )
    if unseen >= DOMINATES:
        return "dominates", None
    return "is too weak" if seen < TOO_WEAK else "is healthy", None


def verdict(metrics):
    """Return (word, sentence) on a discriminator, from the metrics of `measure`: the first word that applies.

    "is too weak": it guesses on training tracks (confidence below 0.6). "overfits": held-out tracks lose half of the
    gap or more, by r_v or by r_v + r_f. "dominates": it is sure and right on held-out tracks (confidence of 0.95 or
    more). "is healthy": else.
    """
    seen, unseen, r_v, r_f = (metrics[name] for name in ("confidence_train", "confidence_heldout", "r_v_sigma", "r_f"))
    facts = (
        f"Its mean probability of the right answer is {seen:.0%} on training tracks and {unseen:.0%} on held-out ones"
    )
    if r_v is not None:
        facts += f", r_v = {r_v:.2f} and r_f = {r_f:.2f}".replace("-", "−")
    if seen < 0.6:
        return "is too weak", f"{facts}: it guesses even on its training tracks."
    if r_v is not None and max(r_v, r_v + r_f) >= 0.5:
        return "overfits", f"{facts}: it judges by memory of its training tracks."
    if unseen >= 0.95:
        return "dominates", f"{facts}: it hardly ever errs on any track, so it has skill or a shortcut, not a memory."
    return "is healthy", f"{facts}: what it has learnt on training tracks holds for held-out ones."
