// The mathematics of DRAW AUDIO: waveforms, harmonics, envelope, a band-limited note, a wav file. It needs no page.
// A wave is one cycle, Float32Array(SIZE), with sample i at phase i / SIZE; it can hold harmonics below SIZE / 2.

export const SIZE = 2048;
export const BASIC = ["sine", "square", "triangle", "saw"];
const FINE = 65536; // points of a cycle for playing: the error of linear interpolation is below -70 dB

/** Sine amplitude of harmonic n >= 1 of a basic waveform with peaks at -1 and 1, by its Fourier series. */
export function series(kind, n) {
  const odd = n % 2;
  return {
    sine: n === 1 ? 1 : 0,
    square: odd * 4 / (Math.PI * n),
    triangle: odd * (n % 4 === 1 ? 8 : -8) / (Math.PI * n) ** 2,
    saw: (odd ? 2 : -2) / (Math.PI * n),
  }[kind];
}

/** Fourier transform in place (radix 2, decimation in time): sum of x[i] exp(-2 pi j i k / size). */
export function fft(re, im) {
  const size = re.length;
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [re[i], re[j], im[i], im[j]] = [re[j], re[i], im[j], im[i]];
  }
  for (let half = 1; half < size; half *= 2) {
    for (let k = 0; k < half; k++) {
      const angle = -Math.PI * k / half, c = Math.cos(angle), s = Math.sin(angle);
      for (let a = k, b = k + half; b < size; a += 2 * half, b += 2 * half) {
        const x = re[b] * c - im[b] * s, y = re[b] * s + im[b] * c;
        re[b] = re[a] - x, im[b] = im[a] - y;
        re[a] += x, im[a] += y;
      }
    }
  }
}

/** Amplitudes of a wave's harmonics: cosines and sines, each Float64Array(SIZE / 2), harmonic n at index n. */
export function harmonics(wave) {
  const re = Float64Array.from(wave), im = new Float64Array(wave.length), half = wave.length / 2;
  fft(re, im);
  const scale = (n) => (n ? 1 : 0.5) / half;
  return {
    cosines: re.slice(0, half).map((x, n) => x * scale(n)),
    sines: im.slice(0, half).map((x, n) => -x * scale(n)),
  };
}

/** Amplitude of each harmonic, independent of its phase: Float64Array(SIZE / 2). */
export function magnitudes({ cosines, sines }) {
  return cosines.map((c, n) => Math.hypot(c, sines[n]));
}

/** Keep the harmonics that can sound at `frequency`: those below half the sample rate, without the offset. */
export function audible({ cosines, sines }, frequency, rate) {
  const keep = (x, n) => (n > 0 && n * frequency < rate / 2 ? x : 0);
  return { cosines: cosines.map(keep), sines: sines.map(keep) };
}

/** One cycle of `size` points (at least twice as many as there are harmonics) from its harmonics. */
export function cycle({ cosines, sines }, size) {
  const re = new Float64Array(size), im = new Float64Array(size);
  re.set(cosines), im.set(sines); // the real part of sum (c + j s) exp(-j n phase) is sum c cos + s sin
  fft(re, im);
  return re;
}

const basic = Object.fromEntries(BASIC.map((kind) => {
  const sines = Float64Array.from({ length: SIZE / 2 }, (_, n) => (n ? series(kind, n) : 0));
  return [kind, cycle({ cosines: new Float64Array(SIZE / 2), sines }, SIZE)];
}));

/** Mix `amounts` of the basic waveforms and of `drawn`; amounts whose sum exceeds 1 are scaled down to a sum of 1. */
export function mixed(amounts, drawn) {
  const parts = { ...basic, drawn };
  const total = Math.max(1, Object.values(amounts).reduce((sum, amount) => sum + amount, 0));
  const used = Object.entries(amounts).filter(([, amount]) => amount > 0);
  return Float32Array.from({ length: SIZE }, (_, i) =>
    used.reduce((sum, [kind, amount]) => sum + amount * parts[kind][i], 0) / total);
}

/** Draw a straight line into `wave` from one point to another, each [index, value], to the nearest samples. */
export function line(wave, from, to) {
  const [[a, start], [b, end]] = from[0] <= to[0] ? [from, to] : [to, from];
  const first = Math.max(0, Math.round(a)), last = Math.min(wave.length - 1, Math.round(b));
  for (let i = first; i <= last; i++) {
    const share = b > a ? Math.min(1, Math.max(0, (i - a) / (b - a))) : 1;
    wave[i] = Math.min(1, Math.max(-1, start + share * (end - start)));
  }
}

/** Frequency of a MIDI key, in hertz. */
export const frequency = (key) => 440 * 2 ** ((key - 69) / 12);

/** Time constant of an exponential that falls by 60 dB in so many seconds. */
export const constant = (seconds) => seconds / Math.log(1000);

/** Level of a held note `time` seconds after its start: linear attack, then exponential decay to the sustain. */
export function level({ attack, decay, sustain }, time) {
  if (time < attack) return time / attack;
  return sustain + (1 - sustain) * Math.exp(-(time - attack) / constant(decay));
}

/** A note held for `held` seconds, with its release: Float32Array, band-limited; scaled down if it would clip. */
export function renderNote(wave, key, envelope, rate, held = 2) {
  const hertz = frequency(key), table = cycle(audible(harmonics(wave), hertz, rate), FINE);
  const peak = table.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const loud = 1 / Math.max(1, peak), end = level(envelope, held);
  return Float32Array.from({ length: Math.round((held + envelope.release) * rate) }, (_, n) => {
    const time = n / rate, place = (time * hertz % 1) * FINE, i = Math.floor(place);
    const value = table[i] + (place - i) * (table[(i + 1) % FINE] - table[i]);
    const late = time - held;
    return loud * value * (late < 0 ? level(envelope, time) : end * Math.exp(-late / constant(envelope.release)));
  });
}

/** A mono 16-bit wav file (ArrayBuffer) of samples from -1 to 1. */
export function wavFile(samples, rate) {
  const file = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, word) => [...word].forEach((letter, n) => file.setUint8(at + n, letter.charCodeAt(0)));
  text(0, "RIFF"), file.setUint32(4, 36 + 2 * samples.length, true), text(8, "WAVEfmt ");
  file.setUint32(16, 16, true), file.setUint16(20, 1, true), file.setUint16(22, 1, true); // PCM, one channel
  file.setUint32(24, rate, true), file.setUint32(28, 2 * rate, true);
  file.setUint16(32, 2, true), file.setUint16(34, 16, true);
  text(36, "data"), file.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, n) => file.setInt16(44 + 2 * n, Math.round(32767 * Math.min(1, Math.max(-1, x))), true));
  return file.buffer;
}
