// The pen of DRAW AUDIO: mouse, finger or arrow keys draw on the canvas of the wave.

import { SIZE, line } from "./signal.js";
import { RANGE } from "./pictures.js";

const STEP = SIZE / 64; // how far an arrow key moves along the cycle
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export class Pen {
  cursor = null; // index at which the arrow keys bend the wave
  last = null; // [index, value]: the end of the stroke in progress

  /** Callbacks: `begin()` returns the wave to draw into, `moved()` follows every change, `ended()` every stroke. */
  constructor(canvas, { begin, moved, ended }) {
    Object.assign(this, { canvas, begin, moved, ended });
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("lostpointercapture", () => { this.last = null, ended(); });
    canvas.addEventListener("keydown", (event) => this.bend(event));
    canvas.addEventListener("blur", () => { this.cursor = null, moved(); });
  }

  /** The point [index, value] under a pointer. */
  point({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return [(clientX - box.left) / box.width * SIZE, (1 - 2 * (clientY - box.top) / box.height) * RANGE];
  }

  down(event) {
    if (this.last || event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.cursor = null, this.last = this.point(event);
    this.wave = this.begin();
    line(this.wave, this.last, this.last);
    this.moved();
  }

  move(event) {
    if (!this.last || !this.canvas.hasPointerCapture(event.pointerId)) return;
    for (const part of event.getCoalescedEvents()) {
      const next = this.point(part);
      line(this.wave, this.last, next);
      this.last = next;
    }
    this.moved();
  }

  /** Arrow keys: left and right move the cursor; up and down add a small triangle to the wave around it. */
  bend(event) {
    if (!(event.key in ARROWS)) return;
    event.preventDefault();
    const [right, up] = ARROWS[event.key];
    this.cursor = ((this.cursor ?? SIZE / 4) + right * STEP + SIZE) % SIZE;
    const wave = up ? this.begin() : null;
    for (let k = 1 - STEP; up && k < STEP; k++) {
      const i = (this.cursor + k + SIZE) % SIZE, value = wave[i] + 0.05 * up * (1 - Math.abs(k) / STEP);
      wave[i] = Math.min(1, Math.max(-1, value));
    }
    this.moved();
    if (up) this.ended();
  }
}
