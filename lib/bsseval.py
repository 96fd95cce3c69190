"""BSSEval v4, the numbers of museval at a small part of its time.

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

Where the time goes elsewhere and not here:

* correlations: sums of cross-spectra of frames that overlap by 511 samples, less those of the overlaps alone, so
  every pair of samples at most 511 apart counts once and memory does not grow with the track;
* filters: G is block-Toeplitz, so the block Levinson (Whittle–Wiggins–Robinson) recursion gives the two block columns
  that determine its inverse (Gohberg and Heinig), which is then applied, and its result refined, by FFT; a GPU, or a
  system too ill-conditioned for this, takes dense Cholesky and, at last, LU;
* energies: by Parseval from the spectra of the windows, without an inverse transform.

Limits of the measure itself: ratios above about 100 dB are rounding noise, here and in museval; and on stems decoded
from AAC to float nothing is left above the codec's cutoff, G is singular to working precision and SIR is ill-posed
(museval's own values move by 0.15 dB when all signals are scaled by 0.7). Round such signals to 16 bits: both agree.
"""

import numpy as np
import torch

from lib.errors import UserError

try:
    import numba
except ImportError:  # a GPU needs none, and a CPU gets the same numbers from torch in three times the time
    numba = None

TAPS = 512  # length of the distortion filters, museval's default
FRAME = 16384  # FFT length of the correlations
BLOCK_BYTES = {"cpu": 2**25, "cuda": 2**30}  # spectra held at a time; on a CPU they should stay in the cache
TOLERANCE = 1e-11  # relative residual of the normal equations below which no better solver is tried


def evaluate(references, estimates, win=44100, hop=44100):
    """(SDR, ISR, SIR, SAR) in dB, each a float64 array (sources, windows), as `museval.evaluate` gives them.

    `references` and `estimates` are arrays or tensors (sources, samples, channels) of one shape, finite; a CUDA tensor
    is evaluated on its GPU. `win` and `hop` are in samples; there are floor((samples − win + hop) / hop) windows, or
    one when the track is not longer than `win`. A window in which any reference or estimate has a channel sum of zero
    at every sample is NaN for all sources; a ratio without any error is inf. Sources are not permuted.

    The same input gives the same bits on every run with the same number of torch threads. One thread is the efficient
    choice: evaluate several tracks in as many processes (about 100 MiB each besides the tracks, whatever their length).
    Raises `UserError` for wrong shapes, window sizes or values, and for a source silent over the whole track.
    """
    references, estimates = _tensor(references, "references"), _tensor(estimates, "estimates")
    if references.shape != estimates.shape:
        raise UserError(
            f"The references have shape {tuple(references.shape)} but the estimates {tuple(estimates.shape)}: "
            "cut or pad them to the same (sources, samples, channels)."
        )
    if win < 1 or hop < 1:
        raise UserError(f"win={win} and hop={hop} samples cannot frame a signal: give at least 1 for each.")
    signals = references.to(estimates.device), estimates
    for name, signal in zip(("reference", "estimate"), signals, strict=True):
        for source in np.flatnonzero(~_sounding(signal)):
            raise UserError(f"The {name} of source {source} is silent throughout; leave this source out of both.")

    sources, samples, channels = estimates.shape
    win = int(min(win, samples))
    starts = [int(k * hop) for k in range(int((samples - win + hop) // hop))]
    n_fft = _fast_length(win + TAPS - 1)
    together, alone = _filters(_correlations(signals), sources, channels)
    together, alone = (_planes(torch.fft.rfft(filters, n_fft)).contiguous() for filters in (together, alone))

    energies = []
    for spectra in _spectra(signals, starts, win, n_fft):
        spectra[..., [0, -1]] *= 0.5**0.5  # DC and Nyquist count once in Parseval's sum, all other bins twice
        energies.append(_energies(spectra, together, alone, channels))
    true, total, spatial, interference, artifacts, target, projection = torch.cat(energies).cpu().numpy().T
    if sources == 1:
        interference[:] = 0  # both projections are the same
    ratios = np.array([true, true, target, projection]), np.array([total, spatial, interference, artifacts])
    with np.errstate(divide="ignore"):
        decibels = np.where(ratios[1] == 0, np.inf, 10 * np.log10(ratios[0] / np.where(ratios[1] == 0, 1, ratios[1])))
    for window, start in enumerate(starts):
        if not all(_sounding(signal[:, start : start + win]).all() for signal in signals):
            decibels[..., window] = np.nan
    return tuple(decibels)


def _tensor(signals, name):
    """`signals` as a tensor (sources, samples, channels), shared with the caller where possible."""
    if not isinstance(signals, torch.Tensor):
        signals = np.asarray(signals)
        if signals.dtype.kind not in "fiu":
            raise UserError(f"The {name} hold {signals.dtype} values; give real numbers.")
        if min(signals.strides, default=0) < 0 or not signals.flags.writeable:  # torch shares neither kind
            signals = signals.copy()
        signals = torch.from_numpy(signals)
    if signals.ndim != 3 or signals.numel() == 0:
        raise UserError(f"The {name} have shape {tuple(signals.shape)}; give (sources, samples, channels), none empty.")
    return signals.detach()


def _sounding(signal, chunk=512):
    """Which sources have a non-zero channel sum at some sample: a boolean array (sources)."""
    found = np.zeros(len(signal), bool)
    for start in range(0, signal.shape[1], chunk):
        found |= signal[:, start : start + chunk].sum(-1).any(-1).cpu().numpy()
        if found.all():
            break
    return found


def _fast_length(n):
    """The smallest even length of at least `n` without a prime factor above 5."""
    small = (2 * 3**b * 5**c for b in range(22) for c in range(15))
    return min(f * 2 ** max(0, int(-(-n // f) - 1).bit_length()) for f in small)


def _spectra(signals, starts, length, n_fft):
    """Yield planes (frames, channels of references then estimates, 2, bins), some of the frames at `starts` at a time.

    Each overwrites the one before: to touch fresh memory takes a CPU as long as the transforms.
    """
    sources, _, channels = signals[0].shape
    frame = torch.zeros(2, sources, channels, n_fft, dtype=torch.float64, device=signals[0].device)
    at_once = max(1, min(len(starts), BLOCK_BYTES[frame.device.type] // frame.nbytes))
    planes = frame.new_empty(at_once, 2 * sources * channels, 2, n_fft // 2 + 1)
    for first in range(0, len(starts), at_once):
        block = starts[first : first + at_once]
        for target, start in zip(planes, block, strict=False):
            for channel_first, signal in zip(frame, signals, strict=True):
                segment = signal[:, start : start + length]
                channel_first[..., : segment.shape[1]] = segment.mT
                channel_first[..., segment.shape[1] : length] = 0
            target[:] = _planes(torch.fft.rfft(frame.flatten(0, 2)))
        yield planes[: len(block)]


def _planes(spectra):
    """Complex (…, bins) as real and imaginary planes (…, 2, bins)."""
    return torch.view_as_real(spectra).mT


def _complex(planes):
    return torch.complex(*planes.unbind(-2))


def _correlations(signals):
    """r_ij(k) = Σ_t x_i(t) x_j(t + k) of references i with references and estimates j, (TAPS, channels, 2 channels)."""
    samples, channels = signals[0].shape[1], signals[0].shape[0] * signals[0].shape[2]
    overlap, result = TAPS - 1, 0
    hop = FRAME - 2 * overlap
    for first, length, sign in (0, hop + overlap, 1), (hop, overlap, -1):  # the frames, less what two of them share
        n_fft = _fast_length(length + overlap)
        cross = torch.zeros(channels, 2 * channels, 2, n_fft // 2 + 1, dtype=torch.float64, device=signals[0].device)
        for spectra in _spectra(signals, range(first, samples, hop), length, n_fft):
            if not torch.isfinite(spectra[..., 0]).all():
                raise UserError("The references or estimates hold NaN or infinite samples; repair them first.")
            _add_cross_spectra(spectra, cross)
        cross = _complex(cross)
        for i in range(channels):
            cross[i + 1 :, i] = cross[i, i + 1 : channels].conj()
        result = result + sign * torch.fft.irfft(cross, n_fft)[..., :TAPS]
    return result.movedim(-1, 0)


def _filters(correlations, sources, channels):
    """Filters (outputs, inputs, TAPS) of the projections P (all inputs) and P_j (the channels of the source only)."""
    auto, cross = correlations.chunk(2, dim=-1)
    together = _solve(auto[None], cross[None])[0]
    own = [slice(j * channels, (j + 1) * channels) for j in range(sources)]
    alone = together
    if sources > 1:
        alone = _solve(*(torch.stack([r[:, s, s] for s in own]) for r in (auto, cross)))
        alone = torch.cat(list(alone), dim=-1)
    return together.permute(2, 1, 0), alone.permute(2, 1, 0)


def _solve(auto, cross):
    """Filters (batch, TAPS, m, outputs) with Σ_b auto(a − b) filters_b = cross_a, auto(−k) = auto(k)ᵀ."""
    auto, cross = auto.clone(), cross.clone()
    diagonal = auto[:, 0].diagonal(dim1=-2, dim2=-1)
    diagonal += torch.finfo(torch.float64).eps
    scale = diagonal.rsqrt()
    keep = _independent(auto[:, 0] * scale[:, :, None] * scale[:, None]).to(scale)
    # A channel that depends on others gets no filter: a unit impulse, correlated with nothing, stands in its place.
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
    """A boolean (batch, m): channels taken in turn, unless those taken already span them at lag 0."""
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
    e_forward = e_backward = r[:, 0]
    for n in range(m, size, m):  # T [forward; 0] = [e_forward; 0; delta],  T [0; backward] = [deltaᵀ; 0; e_backward]
        delta = reverse[:, :, size - m - n : size - m] @ forward[:, :n]
        to_forward, to_backward = np.linalg.solve(e_backward, delta), np.linalg.solve(e_forward, delta.mT)
        a, b = forward[:, : n + m], backward[:, size - m - n :]
        change = b @ to_forward
        b -= a @ to_backward
        a -= change
        e_forward, e_backward = e_forward - delta.mT @ to_forward, e_backward - delta @ to_backward

    def spectrum(columns):
        return torch.fft.rfft(torch.from_numpy(columns).unflatten(1, (-1, m)), 2 * TAPS, 1)

    shifted = np.roll(backward, m, 1)
    shifted[:, :m] = 0
    factors = [
        (spectrum(columns), torch.from_numpy(np.linalg.inv(e)), sign)
        for columns, e, sign in ((forward, e_forward, 1), (shifted, e_backward, -1))
    ]

    def apply(x):  # T⁻¹ = L(forward) e_forward⁻¹ L(forward)ᵀ − L(0, backward) e_backward⁻¹ L(0, backward)ᵀ
        x, y = torch.fft.rfft(x, 2 * TAPS, 1), 0
        for columns, inverse, sign in factors:
            inner = torch.fft.irfft(columns.mH @ x, dim=1)[:, :TAPS]
            y = y + sign * (columns @ torch.fft.rfft(inverse[:, None] @ inner, 2 * TAPS, 1))
        return torch.fft.irfft(y, dim=1)[:, :TAPS]

    return apply


def _dense(auto):
    """The block-Toeplitz matrix (batch, m TAPS, m TAPS), rows and columns ordered as museval's."""
    both = torch.cat([auto[:, 1:].flip(1).mT, auto], 1)  # lags −(TAPS − 1) … TAPS − 1
    lag = torch.arange(TAPS, device=auto.device)
    return both[:, lag[:, None] - lag + TAPS - 1].permute(0, 3, 1, 4, 2).flatten(3, 4).flatten(1, 2)


def _flat(solve, x):
    """`solve` on matrices (batch, m TAPS, outputs), for `x` (batch, TAPS, m, outputs)."""
    return solve(x.transpose(1, 2).flatten(1, 2)).unflatten(1, (-1, TAPS)).transpose(1, 2)


def _cholesky(auto):
    factor, _ = torch.linalg.cholesky_ex(_dense(auto))  # where it fails, the residual tells
    return lambda x: _flat(lambda y: torch.cholesky_solve(y, factor), x)


def _lu(auto):
    factors = torch.linalg.lu_factor_ex(_dense(auto))[:2]
    return lambda x: _flat(lambda y: torch.linalg.lu_solve(*factors, y), x)


def _add_cross_spectra(spectra, cross):
    """cross[i, j] += Σ_frames conj(spectra_i) spectra_j, in planes, for references i and all j ≥ i."""
    if numba and not spectra.is_cuda:
        _add_cross_spectra_compiled(spectra.numpy(), cross.numpy())
        return
    spectra = _complex(spectra)
    for i in range(len(cross)):
        cross[i, i:] += _planes((spectra[:, i : i + 1].conj() * spectra[:, i:]).sum(0))


def _energies(spectra, together, alone, channels):
    """Energies (frames, sources, 7) of s, ŝ − s, P_j − s, P − P_j, ŝ − P, P_j and P."""
    if numba and not spectra.is_cuda:
        result = torch.from_numpy(_energies_compiled(spectra.numpy(), together.numpy(), alone.numpy()))
    else:
        (s, estimate), together, alone = _complex(spectra).chunk(2, dim=1), _complex(together), _complex(alone)
        p = torch.einsum("oif,wif->wof", together, s)
        own = alone.unflatten(0, (-1, channels)), s.unflatten(1, (-1, channels))
        p_j = torch.einsum("jcif,wjif->wjcf", *own).flatten(1, 2)
        parts = s, estimate - s, p_j - s, p - p_j, estimate - p, p_j, p
        result = torch.stack([torch.view_as_real(part).square().sum((2, 3)) for part in parts], -1)
    return result.unflatten(1, (-1, channels)).sum(2)


if numba:
    # Both kernels take short runs of bins, which stay in the cache, with real and imaginary parts apart, which suits
    # vector units; loops index slices from zero: an index that might be negative would keep them scalar.
    compiled = numba.njit(nogil=True, fastmath=True, cache=True)
    RUN = 512

    @compiled
    def _add_cross_spectra_compiled(spectra, cross):
        for start in range(0, spectra.shape[-1], RUN):
            bins = slice(start, min(start + RUN, spectra.shape[-1]))
            for i in range(len(cross)):
                for j in range(i, cross.shape[1]):
                    re, im = cross[i, j, 0, bins], cross[i, j, 1, bins]
                    for w in range(len(spectra)):
                        a, b = spectra[w, i, 0, bins], spectra[w, i, 1, bins]
                        c, d = spectra[w, j, 0, bins], spectra[w, j, 1, bins]
                        for f in range(len(re)):
                            re[f] += a[f] * c[f] + b[f] * d[f]
                            im[f] += a[f] * d[f] - b[f] * c[f]

    @compiled
    def _filtered(filters, spectra, bins, re, im):
        re[:] = 0
        im[:] = 0
        for i in range(len(filters)):
            a, b, c, d = filters[i, 0, bins], filters[i, 1, bins], spectra[i, 0, bins], spectra[i, 1, bins]
            for f in range(len(re)):
                re[f] += a[f] * c[f] - b[f] * d[f]
                im[f] += a[f] * d[f] + b[f] * c[f]

    @compiled
    def _energies_compiled(spectra, together, alone):
        outputs, inputs = alone.shape[:2]
        result = np.zeros((len(spectra), outputs, 7))
        buffers = np.empty((4, RUN))
        for start in range(0, spectra.shape[-1], RUN):
            bins = slice(start, min(start + RUN, spectra.shape[-1]))
            n = bins.stop - start
            p, q, p_j, q_j = buffers[0, :n], buffers[1, :n], buffers[2, :n], buffers[3, :n]
            for w in range(len(spectra)):
                x = spectra[w]
                for o in range(outputs):
                    _filtered(together[o], x, bins, p, q)
                    _filtered(alone[o], x[o // inputs * inputs :], bins, p_j, q_j)
                    s, t, u, v = x[o, 0, bins], x[o, 1, bins], x[outputs + o, 0, bins], x[outputs + o, 1, bins]
                    e0 = e1 = e2 = e3 = e4 = e5 = e6 = 0.0
                    for f in range(n):
                        e0 += s[f] ** 2 + t[f] ** 2
                        e1 += (u[f] - s[f]) ** 2 + (v[f] - t[f]) ** 2
                        e2 += (p_j[f] - s[f]) ** 2 + (q_j[f] - t[f]) ** 2
                        e3 += (p[f] - p_j[f]) ** 2 + (q[f] - q_j[f]) ** 2
                        e4 += (u[f] - p[f]) ** 2 + (v[f] - q[f]) ** 2
                        e5 += p_j[f] ** 2 + q_j[f] ** 2
                        e6 += p[f] ** 2 + q[f] ** 2
                    result[w, o] += np.array([e0, e1, e2, e3, e4, e5, e6])
        return result
