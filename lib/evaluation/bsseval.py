"""BSSEval v4: the values of museval in a fraction of its time.

An estimate ŝ_j of source j (all its channels) is decomposed, window by window, by two projections:

    P_j = Σ_{i ∈ channels of s_j} C^j_i * s_i        onto the reference of source j, delayed by 0 … 511 samples
    P   = Σ_{i ∈ all channels} C_i * s_i             onto the references of all sources, delayed likewise

    SDR = ‖s_j‖² / ‖ŝ_j − s_j‖²      ISR = ‖s_j‖² / ‖P_j − s_j‖²
    SIR = ‖P_j‖² / ‖P − P_j‖²        SAR = ‖P‖² / ‖ŝ_j − P‖²                       each in dB (10 log10)

(Vincent, Gribonval and Févotte, "Performance measurement in blind audio source separation", IEEE TASLP 14(4), 2006,
for the decomposition and filtered projections; Stöter, Liutkus and Ito, "The 2018 signal separation evaluation
campaign", LVA/ICA 2018, for version 4, whose filters C are fitted once to the whole track; museval 0.4.1 for every
convention.) The filters solve the normal equations (G + eps I) C = D, where G and D hold the correlations at lags
0 … 511. Each window is then filtered by itself: zeros before it, its tail of 511 samples kept.

Why it is fast: one transform of a window serves correlations and projections, unless windows are short or overlap.
G is block-Toeplitz: the block Levinson (Whittle–Wiggins–Robinson) recursion gives the two block columns that determine
its inverse (Gohberg and Heinig), which FFTs apply and refine. A GPU, or an ill-conditioned system, takes dense
Cholesky, and LU as the last resort. Energies follow from Parseval, and each projection is one matrix product per bin.

Limits of the measure itself: ratios above about 100 dB are rounding noise, here and in museval; and stems decoded from
AAC to float hold nothing above the codec's cutoff, so that G is singular and SIR ill-posed (museval's own values move
by 0.15 dB when all signals are scaled by 0.7). Round such signals to 16 bits: both agree.
"""

from functools import partial, reduce

import numpy as np
import torch
from scipy.fft import next_fast_len

from lib.common.errors import UserError

VERSION = 1  # of the scores, by whichever metric; see lib.evaluation.score
TAPS = 512  # length of the distortion filters, museval's default
FRAME = 16384  # samples in a frame of the correlations, where windows are shorter or overlap
AT_ONCE = 4  # frames transformed together
GROUP_BYTES = 2**31  # spectra in memory; the windows of a longer track are transformed twice, group by group
STEP_BYTES = {"cpu": 2**18, "cuda": 2**27}  # spectra of the references in a batch; on a CPU they stay in the cache
TOLERANCE = 1e-11  # relative residual of the normal equations that suffices


def evaluate(references, estimates, win=44100, hop=44100):
    """(SDR, ISR, SIR, SAR) in dB, each a float64 array (sources, windows), as `museval.evaluate` returns them.

    `references` and `estimates` are arrays or tensors (sources, samples, channels) of one shape, finite; a CUDA tensor
    is evaluated on its GPU. `win` and `hop` are in samples; a track not longer than `win` is one window. All sources
    are NaN in a window in which any reference or estimate has a channel sum of zero at every sample; a ratio without
    error is inf. Sources are not permuted. Raises `UserError` for wrong shapes, window sizes or values, and for a
    source silent over the whole track.

    The same number of torch threads gives the same bits; one thread per process is the most efficient. Memory: 100 MiB
    and 6 MiB per second of four stereo stems.
    """
    references, estimates = _tensor(references, "references"), _tensor(estimates, "estimates")
    shapes = tuple(references.shape), tuple(estimates.shape)
    if shapes[0] != shapes[1]:
        raise UserError(f"The references have shape {shapes[0]} but the estimates {shapes[1]}: cut or pad them alike.")
    if win < 1 or hop < 1:
        raise UserError(f"win={win} and hop={hop} samples cannot frame a signal: give at least 1 for each.")
    signals = references.to(estimates.device), estimates
    for name, signal in zip(("reference", "estimate"), signals, strict=True):
        for source in np.flatnonzero(~_sounding(signal)):
            raise UserError(f"The {name} of source {source} is silent throughout; leave this source out of both.")

    sources, samples, channels = estimates.shape
    win = min(win, samples)
    starts = range(0, samples - win + 1, hop)
    n_fft = _fast_length(win + TAPS - 1)
    side_by_side = hop == win >= FRAME
    correlations, spectra = _correlations(signals, win if side_by_side else FRAME, keep=side_by_side)
    filters = _filters(correlations, channels, n_fft)
    # The kept spectra may also cover a remainder.
    groups = _spectra(signals, starts, win, n_fft) if spectra is None else [spectra[:, :, : len(starts)]]
    energies = torch.cat([_energies(group, filters) for group in groups], 1).unflatten(2, (sources, channels)).sum(3)
    true, total, spatial, interference, artifacts, target, projection = energies.mT.cpu().numpy()
    if sources == 1:
        interference[:] = 0  # both projections are the same
    signal, error = np.array([true, true, target, projection]), np.array([total, spatial, interference, artifacts])
    with np.errstate(divide="ignore", invalid="ignore"):
        decibels = np.where(error == 0, np.inf, 10 * np.log10(signal / error))
    silent = [not all(_sounding(x[:, start : start + win]).all() for x in signals) for start in starts]
    decibels[..., silent] = np.nan
    return tuple(decibels)


def _tensor(signals, name):
    """`signals` as a tensor (sources, samples, channels), shared with the caller where possible."""
    if not isinstance(signals, torch.Tensor):
        signals = np.asarray(signals)
        if signals.dtype.kind not in "fiu":
            raise UserError(f"The {name} hold {signals.dtype} values; give real numbers.")
        signals = torch.from_numpy(np.require(signals, requirements="CW"))  # torch shares no other array
    if signals.ndim != 3 or signals.numel() == 0:
        raise UserError(f"The {name} have shape {tuple(signals.shape)}; give (sources, samples, channels), none empty.")
    return signals.detach()


def _sounding(signal):
    """Which sources have a channel sum that is not zero at some sample, (sources,); most do near the beginning."""
    found, start, stop = np.zeros(len(signal), bool), 0, 512
    while start < signal.shape[1] and not found.all():
        found |= (reduce(torch.add, signal[:, start:stop].unbind(-1)) != 0).any(-1).cpu().numpy()
        start, stop = stop, 2 * stop
    return found


def _fast_length(n):
    """The smallest even length of at least `n` without a prime factor above 5."""
    return 2 * next_fast_len((n + 1) // 2, real=True)


def _spectra(signals, starts, length, n_fft):
    """Yield spectra (2, bins, frames, channels of all sources) in groups of GROUP_BYTES; each overwrites the last."""
    (sources, _, channels), device = signals[0].shape, signals[0].device
    bins, m = n_fft // 2 + 1, sources * channels
    at_once = max(1, min(len(starts), GROUP_BYTES // (2 * bins * m * 16)))
    spectra = torch.empty(2, bins, at_once, m, dtype=torch.complex128, device=device)
    block = torch.zeros(2, min(at_once, AT_ONCE), sources, channels, n_fft, dtype=torch.float64, device=device)
    for first in range(0, len(starts), at_once):
        group = starts[first : first + at_once]
        for k in range(0, len(group), AT_ONCE):
            part = group[k : k + AT_ONCE]
            for frames, signal in zip(block, signals, strict=True):
                for frame, start in zip(frames, part, strict=False):
                    segment = signal[:, start : start + length]
                    frame[..., : segment.shape[1]] = segment.mT
                    frame[..., segment.shape[1] : length] = 0
            transformed = torch.fft.rfft(block[:, : len(part)].flatten(2, 3))
            spectra[:, :, k : k + len(part)] = transformed.permute(0, 3, 1, 2)
        yield spectra[:, :, : len(group)]


def _steps(spectra):
    """Slices of the bins, each of about STEP_BYTES."""
    step = max(1, STEP_BYTES[spectra.device.type] // spectra[0, 0].nbytes)
    return [slice(first, first + step) for first in range(0, spectra.shape[1], step)]


def _cross_correlations(left, right, lags):
    """Σ_frames Σ_t x_i(t) y_j(t + k), circular, of references x in `left` with both y in `right`, (2, lags, m, m)."""
    m = left.shape[3]
    cross = left.new_empty(m, 2, m, left.shape[1])
    for bins in _steps(left):
        x = left[0, bins].mH.resolve_conj()
        cross[..., bins] = torch.stack([x @ y[bins] for y in right]).permute(2, 0, 3, 1)
    cyclic = torch.stack([torch.fft.irfft(one)[..., lags] for one in cross])  # one by one to save memory
    return cyclic.permute(1, 3, 0, 2)


def _correlations(signals, hop, keep):
    """r_ij(k) = Σ_t x_i(t) y_j(t + k) of references x with references and estimates y, (2, TAPS, channels, channels).

    With `keep`, also the spectra of the adjacent frames of `hop` samples each, or None if memory cannot hold them all.
    """
    samples, n_fft, result = signals[0].shape[1], _fast_length(hop + TAPS - 1), 0
    frames = range(0, samples, hop)
    for spectra in _spectra(signals, frames, hop, n_fft):
        if not torch.isfinite(torch.view_as_real(spectra[:, 0])).all():
            raise UserError("The references or estimates hold NaN or infinite samples; repair them first.")
        result = result + _cross_correlations(spectra, spectra, slice(TAPS))
    # Pairs of samples in neighbouring frames: the last TAPS − 1 of one, the first TAPS − 1 of the other.
    sides = (range(first, samples + first - hop, hop) for first in (hop - TAPS + 1, hop))
    for left, right in zip(*(_spectra(signals, side, TAPS - 1, 2 * TAPS) for side in sides), strict=True):
        result += _cross_correlations(left, right, torch.arange(-TAPS + 1, 1))
    return result, spectra if keep and spectra.shape[2] == len(frames) else None


def _filters(correlations, channels, n_fft):
    """Spectra (2, inputs, outputs, bins) of the filters from the references to the projections P and P_j."""
    together = _solve(*correlations[:, None])[0]
    alone = torch.zeros_like(together)
    own = [slice(first, first + channels) for first in range(0, len(together[0]), channels)]
    solved = _solve(*torch.stack([correlations[:, :, s, s] for s in own], 1))
    for s, filters in zip(own, solved, strict=True):
        alone[:, s, s] = filters
    pieces = torch.cat([together, alone], 1).permute(1, 2, 0)  # one by one to save memory
    return torch.stack([torch.fft.rfft(piece, n_fft) for piece in pieces]).unflatten(0, (2, -1))


def _solve(auto, cross):
    """Filters (batch, TAPS, m, outputs) with Σ_b auto(a − b) filters_b = cross_a, auto(−k) = auto(k)ᵀ."""
    auto, cross = auto.clone(), cross.clone()
    diagonal = auto[:, 0].diagonal(dim1=-2, dim2=-1)
    diagonal += torch.finfo(torch.float64).eps
    scale = diagonal.rsqrt()
    keep = _independent(auto[:, 0] * scale[:, :, None] * scale[:, None]).to(scale)
    # A channel that depends on others gets no filter: an uncorrelated unit impulse replaces it.
    auto *= ((scale * keep)[:, :, None] * (scale * keep)[:, None])[:, None]
    auto[:, 0] += torch.diag_embed(1 - keep)
    cross *= (scale * keep)[:, None, :, None]

    spectrum = torch.fft.rfft(torch.cat([auto, torch.zeros_like(auto[:, :1]), auto[:, 1:].flip(1).mT], 1), dim=1)
    best, least = torch.zeros_like(cross), np.inf
    for inverse in (_levinson, _cholesky, _lu)[auto.is_cuda :]:
        try:
            apply, filters = inverse(auto), torch.zeros_like(cross)
        except np.linalg.LinAlgError:  # the recursion met a singular block
            continue
        for _ in range(5):
            residual = cross - torch.fft.irfft(spectrum @ torch.fft.rfft(filters, 2 * TAPS, 1), dim=1)[:, :TAPS]
            error = (residual.norm(dim=(1, 2)) / cross.norm(dim=(1, 2)).clamp(min=1e-300)).max().item()
            if error < least:
                best, least = filters, error
            if not error > TOLERANCE / 1000:
                break
            filters = filters + apply(residual)
        if least <= TOLERANCE:
            break
    return best * scale[:, None, :, None]


def _independent(gram):
    """A boolean tensor (batch, m): False for a channel that the channels before it span at lag 0."""
    keep = np.zeros(gram.shape[:2], bool)
    for matrix, kept in zip(gram.cpu().numpy(), keep, strict=True):
        for i in range(len(matrix)):
            kept[i] = True
            kept[i] = np.linalg.eigvalsh(matrix[np.ix_(kept, kept)])[0] > 1e-13 * kept.sum()
    return torch.from_numpy(keep)


def _levinson(auto):
    """The inverse as a function, from its first and last block columns by the recursion of Whittle and Robinson."""
    size, m = auto.shape[1] * auto.shape[2], auto.shape[2]
    r = auto.numpy()
    reverse = np.ascontiguousarray(r[:, ::-1].swapaxes(1, 2)).reshape(len(r), m, size)  # r(TAPS − 1) … r(0)
    forward, backward = np.zeros((2, len(r), size, m))
    forward[:, :m] = backward[:, -m:] = np.eye(m)
    e = np.stack([r[:, 0], r[:, 0]])  # of forward and of backward
    for n in range(m, size, m):  # T [forward; 0] = [e_0; 0; delta],  T [0; backward] = [deltaᵀ; 0; e_1]
        delta = reverse[:, :, size - m - n : size - m] @ forward[:, :n]
        deltas = np.stack([delta, delta.mT])
        to_forward, to_backward = to = np.linalg.solve(e[::-1], deltas)
        e = e - deltas.mT @ to
        a, b = forward[:, : n + m], backward[:, size - m - n :]
        change = b @ to_forward
        b -= a @ to_backward
        a -= change

    shifted = np.roll(backward, m, 1)
    shifted[:, :m] = 0
    columns = torch.from_numpy(np.stack([forward, shifted])).unflatten(2, (-1, m))
    columns, middles = torch.fft.rfft(columns, 2 * TAPS, 2), torch.from_numpy(np.linalg.inv(e))[:, :, None]

    def apply(x):  # T⁻¹ = L(forward) e_0⁻¹ L(forward)ᵀ − L(0, backward) e_1⁻¹ L(0, backward)ᵀ
        inner = torch.fft.irfft(columns.mH @ torch.fft.rfft(x, 2 * TAPS, 1), dim=2)[:, :, :TAPS]
        first, second = columns @ torch.fft.rfft(middles @ inner, 2 * TAPS, 2)
        return torch.fft.irfft(first - second, dim=1)[:, :TAPS]

    return apply


def _dense(auto, factorise):
    """The inverse as a function; factorise: takes a matrix (batch, m TAPS, m TAPS), ordered as museval's; a solver."""
    both = torch.cat([auto[:, 1:].flip(1).mT, auto], 1)  # lags −(TAPS − 1) … TAPS − 1
    lag = torch.arange(TAPS, device=auto.device)
    solve = factorise(both[:, lag[:, None] - lag + TAPS - 1].permute(0, 3, 1, 4, 2).flatten(3, 4).flatten(1, 2))
    return lambda x: solve(x.transpose(1, 2).flatten(1, 2)).unflatten(1, (-1, TAPS)).transpose(1, 2)


def _cholesky(auto):  # the residual reveals a failure
    return _dense(auto, lambda a: partial(torch.cholesky_solve, input2=torch.linalg.cholesky_ex(a).L))


def _lu(auto):
    return _dense(auto, lambda a: partial(torch.linalg.lu_solve, *torch.linalg.lu_factor_ex(a)[:2]))


def _energies(spectra, filters):
    """Energies (7, frames, channels) of s, ŝ − s, P_j − s, P − P_j, ŝ − P, P_j and P."""
    spectra[:, [0, -1]] *= 0.5**0.5  # DC and Nyquist count once in Parseval's sum, all other bins twice
    steps, result = _steps(spectra), 0
    held = spectra.new_empty(7, steps[0].stop, *spectra.shape[2:])
    for bins in steps:
        s, estimate = spectra[:, bins]
        parts = held[:, : len(s)]
        together, alone = filters[..., bins].permute(0, 3, 1, 2).contiguous()
        p_j, p = torch.bmm(s, alone, out=parts[5]), torch.bmm(s, together, out=parts[6])
        parts[0] = s
        for target, (x, y) in zip(parts[1:5], ((estimate, s), (p_j, s), (p, p_j), (estimate, p)), strict=True):
            torch.sub(x, y, out=target)
        result = result + torch.view_as_real(parts).square_().sum(1)
    return result.sum(3)
