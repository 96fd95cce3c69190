"""Make `voices.npz`, the bank of syllables for the singers of the corpus. Needed only to change the bank.

    apt-get install -y flite            # Debian's speech synthesiser with its voices
    pip install pyworld-prebuilt        # the WORLD vocoder; generating songs needs neither
    python -m lib.corpus.make_voices

Every voice of `VOICES` speaks the same syllables (onset, vowel, coda). Every 8 ms, WORLD (Morise et al., 2016)
splits them into spectral envelope, aperiodicity and fundamental frequency. The bank holds the envelope in decibels at
`FREQUENCIES`, the aperiodicity at 3 kHz in decibels and the voicing: about 58 frames of 44 bytes per syllable. The
voices have nothing above 8 kHz; `extend` continues their envelopes to 20 kHz.

Licence: Debian's /usr/share/doc/flite/copyright puts the voices slt, rms, kal16 and awb, as all files that it does
not list otherwise, under the BSD-like terms of their authors (Language Technologies Institute, Carnegie Mellon
University, Alan W Black, David Huggins-Daines and others; copyright (c) 1999-2001 Language Technologies Institute,
Carnegie Mellon University, all rights reserved; no warranty). They may be used, changed and distributed free of
charge for any purpose; notice, conditions and names stay, changes are marked, and the names endorse no product.
This bank is marked as changed: it is a spectral analysis of what the voices speak.
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

VOICES = ("slt", "rms", "kal16", "awb")
ONSETS = ("l", "m", "n", "r", "y", "w", "d", "t", "b", "p", "k", "g", "s", "sh", "ch", "jh", "f", "v", "th", "dh", "hh",
          "z", "", "s-t", "t-r", "d-r", "b-r", "f-l", "s-l", "k-r", "g-l", "s-w", "p-l")  # fmt: skip
VOWELS = ("aa", "ae", "ah", "ao", "eh", "ih", "iy", "uw", "ow", "ey", "ay", "er")
CODAS = ("", "", "n", "", "l", "m", "", "t", "ng", "", "s", "d", "", "z", "v", "k", "", "n-d", "r")
SYLLABLES = 132  # per voice
FRAME_SECONDS = 0.008
RATE = 16_000  # hertz, of the flite voices
MELS = np.linspace(0, 2595 * np.log10(1 + 7600 / 700), 36)
FREQUENCIES = np.r_[700 * (10 ** (MELS / 2595) - 1), 9000, 10_500, 12_000, 13_500, 15_000, 17_000, 20_000]
ZERO = 180  # code of 0 dB, the mean power of the syllable's vowel; one step is 1 dB


def syllables():
    """The syllables that every voice speaks: a list of (onset, vowel, coda), phones joined by hyphens."""
    return [
        (ONSETS[i % len(ONSETS)], VOWELS[(5 * i + i // 12) % len(VOWELS)], CODAS[7 * i % len(CODAS)])
        for i in range(SYLLABLES)
    ]


def speak(voice, phones, folder):
    """Render `phones` with flite; return audio (time,) at `RATE` and the end of each phone in seconds."""
    import soundfile

    wav = Path(folder) / "syllable.wav"
    command = ["flite", "-voice", voice, "--setf", "duration_stretch=1.35", "-psdur"]
    command += ["-p", " ".join(["pau", *phones, "pau"]), "-o", str(wav)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  phones of the list above
    audio, rate = soundfile.read(wav)
    if rate != RATE:
        raise ValueError(f"flite voice {voice} has {rate} Hz where {RATE} Hz is expected")
    return audio, [float(pair.split(":")[1]) for pair in done.stdout.split()]


def extend(envelope, voiced):
    """Extrapolate `envelope` (frames, bands) in dB above 7 kHz, where the voices have nothing.

    It starts at the level of 5.5-7 kHz; unvoiced frames fall slowly, as sibilants do, voiced ones faster.
    """
    level = envelope[:, (FREQUENCIES > 5500) & (FREQUENCIES < 7000)].mean(axis=1, keepdims=True)
    octaves = np.log2(np.maximum(FREQUENCIES, 7000) / 7000)
    fall = np.where(voiced[:, None], -9.0 * octaves - 12.0 * octaves**2, -2.0 * octaves - 10.0 * octaves**2)
    return np.where(FREQUENCIES > 7000, level + fall, envelope)


def analyse(audio, ends, parts):
    """Analyse one syllable; return codes (frames, bands + 1) uint8, voiced (frames,) and marks (4,).

    The last column of the codes is the aperiodicity. The marks are frame numbers: start and end of the nucleus (the
    part of the vowel that a singer stretches), start of the coda, end.
    """
    import pyworld

    f0, time = pyworld.harvest(audio, RATE, f0_floor=60, f0_ceil=320, frame_period=1000 * FRAME_SECONDS)
    f0 = pyworld.stonemask(audio, f0, time, RATE)
    power = pyworld.cheaptrick(audio, f0, time, RATE)
    aperiodicity = pyworld.d4c(audio, f0, time, RATE)
    bins = np.arange(power.shape[1]) * RATE / 2 / (power.shape[1] - 1)
    decibels = 10 * np.log10(power + 1e-14)
    envelope = np.stack([np.interp(FREQUENCIES, bins, frame) for frame in decibels])
    onset, coda = parts
    starts = [0.0, *ends]
    first, vowel, after = starts[1], starts[1 + onset], starts[2 + onset]
    last = starts[2 + onset + coda]
    voiced = f0 > 0
    steady = (time > vowel) & (time < after)
    voiced[steady] = True
    envelope = extend(envelope, voiced)
    loudness = 10 * np.log10((10 ** (envelope[steady] / 10)).mean(axis=0).mean())
    rough = 20 * np.log10(np.stack([np.interp(3000, bins, frame) for frame in aperiodicity]) + 1e-3)
    codes = np.c_[envelope - loudness, rough]
    nucleus = vowel + np.array([0.35, 0.65]) * (after - vowel)
    frames = np.array([first - 0.02, *nucleus, after, last + 0.03])
    frames = np.clip(np.round(frames / FRAME_SECONDS).astype(int), 0, len(f0) - 1)
    keep = slice(frames[0], frames[-1])
    codes = np.clip(np.round(codes[keep] + ZERO), 0, 255).astype(np.uint8)
    return codes, voiced[keep], frames[1:] - frames[0]


def main():
    """Write `voices.npz` beside this file."""
    codes, voiced, marks, owner = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, voice in enumerate(VOICES):
            for onset, vowel, coda in syllables():
                before, behind = [[p for p in part.split("-") if p] for part in (onset, coda)]
                audio, ends = speak(voice, [*before, vowel, *behind], folder)
                code, voicing, mark = analyse(audio.astype(float), ends, (len(before), len(behind)))
                codes.append(code)
                voiced.append(voicing)
                marks.append(mark)
                owner.append(number)
    lengths = np.array([len(code) for code in codes])
    np.savez_compressed(
        Path(__file__).with_name("voices.npz"),
        codes=np.concatenate(codes),
        voiced=np.concatenate(voiced),
        starts=np.r_[0, np.cumsum(lengths)].astype(np.int32),
        marks=np.array(marks, np.int16),
        owner=np.array(owner, np.uint8),
        frequencies=FREQUENCIES.astype(np.float32),
        voices=np.array(VOICES),
    )


if __name__ == "__main__":
    main()
