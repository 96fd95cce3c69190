// DRAW AUDIO: mix and draw one cycle of a wave, see its harmonics, play it. `new DrawAudio(element)` builds the
// instrument in any page; the default export is for anywidget, which calls `render` with the model of `DrawAudio`.

import { BASIC, SIZE, harmonics, magnitudes, mixed, renderNote, wavFile } from "./signal.js";
import { Player } from "./player.js";
import { paintBars, paintEnvelope, paintScope, paintWave } from "./pictures.js";
import { Piano, keyName } from "./piano.js";
import { Pen } from "./pen.js";

const ICONS = {
  sine: "M1 8C4.7-1.3 8.3-1.3 12 8s7.3 9.3 11 0", square: "M1 14V2h11v12h11V2", triangle: "M1 8l5.5-6 11 12L23 8",
  saw: "M1 14L12 2v12L23 2v12", drawn: "M1 9c3-9 4-8 6-1s4 6 5 0 3-9 5-4 2 8 6 4",
};
const ENVELOPE = { attack: 0.01, decay: 0.4, sustain: 0.7, release: 0.3 };
const LIMITS = { attack: [0.002, 2], decay: [0.01, 3], release: [0.01, 4] }; // seconds, on logarithmic sliders
const LEVELS = 100; // of undo, at most
const RATE = 44100; // Hz, of a saved file

const slider = (name, icon = "") => `<label class="row">${icon}<span>${name}</span>
  <input type="range" name="${name}" min="0" max="1" step="0.01"><output></output></label>`;
const icon = (kind) => `<svg viewBox="0 0 24 16" aria-hidden="true"><path d="${ICONS[kind]}"/></svg>`;
const PAGE = `<div class="desk">
<header><h1>Draw audio</h1><p>Mix a wave or draw your own, and play it.</p>
  <div class="tools"><button name="undo" title="Ctrl+Z">Undo</button><button name="reset">Reset</button>
  <button name="save">Save WAV</button></div></header>
<div class="panel wave"><h2>Wave <small>one cycle: draw on it</small></h2>
  <canvas tabindex="0" role="slider" aria-label="Wave: left and right move the cursor, up and down bend the wave there"
  aria-valuemin="-1" aria-valuemax="1"></canvas></div>
<div class="panel mix"><h2>Mix</h2>${Object.keys(ICONS).map((kind) => slider(kind, icon(kind))).join("")}</div>
<div class="panel keys"><div class="bar"><h2>Keyboard</h2>
  <div class="octave" role="group" aria-label="Octave"><button name="down" aria-label="Octave down" title="Z">−</button>
  <output></output><button name="up" aria-label="Octave up" title="X">+</button></div>
  ${slider("volume")}</div>
  <div class="piano" role="group" aria-label="Piano: arrow keys choose a key, space plays it"></div></div>
<div class="panel bars"><h2>Harmonics <small>dB</small></h2><canvas role="img"></canvas></div>
<div class="panel scope"><h2>Oscilloscope <small>20 ms</small></h2>
  <canvas role="img" aria-label="The current sound"></canvas></div>
<div class="panel envelope"><h2>Envelope</h2><canvas role="img" aria-label="Level of a note over time"></canvas>
  ${Object.keys(ENVELOPE).map((name) => slider(name)).join("")}</div></div>`;

export class DrawAudio {
  past = []; // states to go back to
  state = { mix: {}, drawn: new Float32Array(SIZE), envelope: {} };
  key = 60; // the last key played
  ending = new AbortController();

  /** Build the instrument in the element `host`. An optional `model` carries wave and envelope to Python. */
  constructor(host, model) {
    this.model = model, this.player = new Player();
    this.root = document.createElement("section");
    this.root.className = "draw-audio", this.root.tabIndex = -1;
    this.root.innerHTML = PAGE, this.root.instrument = this; // so that a page can reach the instrument
    host.append(this.root);
    this.canvas = this.find(".wave canvas");
    this.pen = new Pen(this.canvas, {
      begin: () => (this.remember(), this.replace(this.wave)), moved: () => this.refresh(), ended: () => this.tell(),
    });
    this.piano = new Piano(this.find(".piano"), (key) => this.press(key), (key) => this.player.release(key));
    this.start();
    this.refresh(), this.loudness(this.player.volume), this.octave(0);
    this.listen();
    if (model) this.hear = () => this.receive(), model.on("change:wave", this.hear), this.hear();
  }

  find = (query) => this.root.querySelector(query);

  listen() {
    const { signal } = this.ending;
    this.root.addEventListener("mousedown", (event) => { // letters play from now on, without a focus ring around the target
      if (!event.target.closest(".wave canvas, .piano")) return;
      event.preventDefault();
      this.root.focus({ preventScroll: true });
    });
    this.root.addEventListener("click", ({ target }) => this.actions[target.name]?.());
    this.root.addEventListener("input", ({ target }) => this.slide(target.name, Number(target.value)));
    this.root.addEventListener("change", () => { this.sliding = false, this.tell(); });
    const desk = this.model ? this.root : document; // on its own page, letters play wherever the focus is
    desk.addEventListener("keydown", (event) => this.typed(event), { signal });
    desk.addEventListener("keyup", (event) => this.piano.typed(event), { signal });
    window.addEventListener("blur", () => this.piano.releaseAll(), { signal });
    this.root.addEventListener("focusout", ({ relatedTarget }) => {
      if (this.model && !this.root.contains(relatedTarget)) this.piano.releaseAll();
    });
    new ResizeObserver(() => this.paint()).observe(this.root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint(), { signal });
  }

  actions = {
    undo: () => {
      if (!this.past.length) return;
      Object.assign(this.state, this.past.pop());
      this.refresh(), this.tell();
    },
    reset: () => {
      this.remember(), this.start();
      this.refresh(), this.tell();
    },
    save: () => {
      const link = document.createElement("a"), sound = renderNote(this.wave, this.key, this.state.envelope, RATE);
      link.href = URL.createObjectURL(new Blob([wavFile(sound, RATE)], { type: "audio/wav" }));
      link.download = `draw-audio-${keyName(this.key).replace("♯", "sharp")}.wav`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    },
    down: () => this.octave(-12),
    up: () => this.octave(12),
  };

  typed(event) {
    if (this.model) event.stopPropagation(); // JupyterLab's shortcuts would add and delete cells
    const { code, repeat, altKey } = event, command = event.ctrlKey || event.metaKey;
    if (command && code === "KeyZ") event.preventDefault(), this.actions.undo();
    if (command || altKey || repeat) return;
    if (code === "KeyZ" || code === "KeyX") this.octave(code === "KeyZ" ? -12 : 12);
    this.piano.typed(event);
  }

  // ---- changes and undo

  start() {
    this.state.mix = { sine: 1, square: 0, triangle: 0, saw: 0, drawn: 0 };
    this.state.envelope = { ...ENVELOPE };
  }

  remember() {
    this.past.push(structuredClone(this.state));
    if (this.past.length > LEVELS) this.past.shift();
  }

  /** Make a copy of `wave` the drawn wave and the only one in the mix; return it. */
  replace(wave) {
    this.state.mix = { sine: 0, square: 0, triangle: 0, saw: 0, drawn: 1 };
    return (this.state.drawn = Float32Array.from(wave));
  }

  slide(name, value) {
    if (name === "volume") return this.loudness(value);
    if (!this.sliding) this.remember();
    this.sliding = true;
    const { mix, envelope } = this.state, [low, high] = LIMITS[name] ?? [];
    if (name in mix) mix[name] = value;
    else envelope[name] = low ? low * (high / low) ** value : value;
    return this.refresh();
  }

  // ---- exchange with Python

  tell() {
    if (!this.model) return;
    this.model.set("wave", new DataView(this.wave.slice().buffer));
    this.model.set("envelope", { ...this.state.envelope });
    this.model.save_changes();
  }

  receive() {
    const { buffer, byteOffset, byteLength } = this.model.get("wave");
    const wave = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
    this.state.envelope = { ...this.model.get("envelope") };
    if (wave.some((x, n) => Math.abs(x - this.wave[n]) > 1e-6)) this.replace(wave);
    this.refresh();
  }

  // ---- sound and pictures

  press(key) {
    this.key = key;
    this.player.press(key, this.spectrum, this.state.envelope);
    this.paint();
  }

  loudness(value) {
    this.player.setVolume(value);
    this.show("volume", value, Math.round(100 * value));
  }

  octave(by) {
    this.piano.move(by);
    this.find(".octave output").value = this.piano.octave;
    for (const [name, end] of Object.entries(this.piano.ends)) this.find(`[name=${name}]`).disabled = end;
  }

  refresh() {
    const { mix, drawn, envelope } = this.state, { attack, decay, sustain, release } = envelope;
    this.wave = mixed(mix, drawn), this.spectrum = harmonics(this.wave), this.amplitudes = magnitudes(this.spectrum);
    this.player.shape(this.spectrum);
    for (const [kind, amount] of Object.entries(mix)) this.show(kind, amount, Math.round(100 * amount));
    for (const [name, seconds] of Object.entries({ attack, decay, release })) {
      const [low, high] = LIMITS[name];
      const text = seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`;
      this.show(name, Math.log(seconds / low) / Math.log(high / low), text);
    }
    this.show("sustain", sustain, `${Math.round(100 * sustain)} %`);
    this.find("[name=undo]").disabled = !this.past.length;
    this.paint();
  }

  /** Set a slider to the fraction `share` of its range. */
  show(name, share, text) {
    const input = this.find(`[name=${name}]`);
    input.value = share, input.ariaValueText = input.nextElementSibling.value = text;
    input.style.setProperty("--fill", share);
  }

  paint() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (!this.root.isConnected) return;
      const { amplitudes } = this, place = this.pen.cursor ?? 0, value = this.wave[place].toFixed(2);
      paintWave(this.canvas, this.wave, this.pen.cursor);
      this.canvas.ariaValueNow = value, this.canvas.ariaValueText = `${value} at ${place} of ${SIZE} samples`;
      paintBars(this.find(".bars canvas"), amplitudes);
      this.find(".bars canvas").ariaLabel = `Amplitudes of harmonics 1 to 5: ${
        [...amplitudes.slice(1, 6)].map((x) => x.toFixed(2)).join(", ")}`;
      paintEnvelope(this.find(".envelope canvas"), this.state.envelope);
      paintScope(this.find(".scope canvas"), this.player.samples(), this.player.rate);
      if (this.player.sounding.size) this.paint();
    });
  }

  end() {
    this.ending.abort();
    this.model?.off("change:wave", this.hear);
    this.player.context?.close();
  }
}

export default {
  render({ model, el }) {
    const instrument = new DrawAudio(el, model);
    return () => instrument.end();
  },
};
