// The sound of DRAW AUDIO: voices of the browser's band-limited oscillator, and a limiter that prevents clipping.

import { audible, constant, frequency, level } from "./signal.js";

const LOUD = 0.25; // peak of one voice: two reach the limiter, four reach full scale

/** The output stage: volume, limiter, clamp at full scale. A single voice stays below the limiter's threshold, because a
 *  gain that changes within a cycle distorts (-55 dB at -12 dB). */
export function output(context, volume) {
  const gain = new GainNode(context, { gain: volume });
  const limiter = new DynamicsCompressorNode(context, { threshold: -6, knee: 6, ratio: 20, attack: 0.003 });
  const clamp = new WaveShaperNode(context, { curve: new Float32Array([-1, 0, 1]) });
  const analyser = new AnalyserNode(context, { fftSize: 4096 });
  gain.connect(limiter).connect(clamp).connect(analyser).connect(context.destination);
  return { gain, analyser };
}

/** Start a voice at `time` into `target`; return functions that end it and that change its wave. */
export function voice(context, target, spectrum, key, envelope, time) {
  const hertz = frequency(key), oscillator = new OscillatorNode(context, { frequency: hertz });
  const gain = new GainNode(context, { gain: 0 });
  const shape = (changed) => {
    const { cosines, sines } = audible(changed, hertz, context.sampleRate);
    const size = Math.max(2, Math.min(cosines.length, Math.ceil(context.sampleRate / 2 / hertz)));
    oscillator.setPeriodicWave(new PeriodicWave(context, {
      real: Float32Array.from(cosines.slice(0, size)), imag: Float32Array.from(sines.slice(0, size)),
      disableNormalization: true,
    }));
  };
  shape(spectrum);
  gain.gain.setValueAtTime(0, time);
  gain.gain.linearRampToValueAtTime(LOUD, time + envelope.attack);
  gain.gain.setTargetAtTime(LOUD * envelope.sustain, time + envelope.attack, constant(envelope.decay));
  oscillator.connect(gain).connect(target);
  oscillator.start(time);
  return {
    shape,
    release(now) {
      gain.gain.cancelScheduledValues(now);
      gain.gain.setValueAtTime(LOUD * level(envelope, now - time), now);
      gain.gain.setTargetAtTime(0, now, constant(envelope.release));
      oscillator.stop(now + envelope.release);
      return new Promise((done) => { oscillator.onended = done; });
    },
  };
}

/** The voices, by MIDI key. The audio device is opened at the first note, as browsers require. */
export class Player {
  held = new Map();
  sounding = new Set();
  volume = 0.7;

  press(key, spectrum, envelope) {
    if (this.held.has(key)) return;
    this.context ??= new AudioContext({ latencyHint: "interactive" });
    this.context.resume();
    this.out ??= output(this.context, this.volume);
    const note = voice(this.context, this.out.gain, spectrum, key, { ...envelope }, this.context.currentTime);
    this.held.set(key, note);
    this.sounding.add(note);
  }

  async release(key) {
    const note = this.held.get(key);
    if (!note) return;
    this.held.delete(key);
    await note.release(this.context.currentTime);
    this.sounding.delete(note);
  }

  shape(spectrum) {
    this.sounding.forEach((note) => note.shape(spectrum));
  }

  setVolume(value) {
    this.volume = value;
    this.out?.gain.gain.setTargetAtTime(value, this.context.currentTime, 0.01);
  }

  get rate() {
    return this.context?.sampleRate ?? 48000;
  }

  /** The samples that leave the limiter now: Float32Array(4096). */
  samples() {
    const now = new Float32Array(4096);
    this.out?.analyser.getFloatTimeDomainData(now);
    return now;
  }
}
