// The pictures of DRAW AUDIO. Each function repaints a whole canvas in the colours of the style sheet.

import { SIZE, constant, level } from "./signal.js";

export const RANGE = 1.2; // the panel of the wave shows -RANGE to RANGE
const BARS = 32;

/** Clear a canvas at the screen's resolution; return its context in CSS pixels, its size and the page's colours. */
function sheet(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas, dots = devicePixelRatio || 1;
  canvas.width = Math.round(width * dots), canvas.height = Math.round(height * dots);
  const style = getComputedStyle(canvas), colour = (name) => style.getPropertyValue(`--${name}`);
  const pen = canvas.getContext("2d");
  pen.scale(dots, dots);
  pen.lineJoin = pen.lineCap = "round";
  pen.font = `10px ${style.fontFamily}`;
  return { pen, width, height, colour };
}

function rule(pen, colour, ...points) {
  pen.strokeStyle = colour, pen.lineWidth = 1;
  pen.beginPath();
  points.forEach(([x, y], n) => (n ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
}

/** Draw samples as a curve over the whole width, and fill it down to `base` if that is given. */
function curve(pen, colour, samples, width, y, base) {
  pen.beginPath();
  samples.forEach((value, n) => pen.lineTo((n * width) / (samples.length - 1), y(value)));
  pen.strokeStyle = colour, pen.lineWidth = 2.25;
  pen.stroke();
  if (base === undefined) return;
  pen.lineTo(width, base), pen.lineTo(0, base);
  pen.globalAlpha = 0.12, pen.fillStyle = colour;
  pen.fill();
  pen.globalAlpha = 1;
}

export function paintWave(canvas, wave, cursor) {
  const { pen, width, height, colour } = sheet(canvas), y = (value) => (1 - value / RANGE) * height / 2;
  for (const value of [1, -1]) rule(pen, colour("grid"), [0, y(value)], [width, y(value)]);
  for (const share of [0.25, 0.5, 0.75]) rule(pen, colour("grid"), [share * width, 0], [share * width, height]);
  rule(pen, colour("axis"), [0, y(0)], [width, y(0)]);
  curve(pen, colour("accent"), [...wave, wave[0]], width, y, y(0));
  if (cursor === null) return;
  const x = (cursor / SIZE) * width;
  rule(pen, colour("ink"), [x, 0], [x, height]);
  pen.fillStyle = colour("ink");
  pen.beginPath(), pen.arc(x, y(wave[cursor]), 5, 0, 7), pen.fill();
}

export function paintBars(canvas, amplitudes) {
  const { pen, width, height, colour } = sheet(canvas), foot = height - 22, head = 14, left = 36;
  const y = (db) => head + (Math.max(db, -60) / -60) * (foot - head), slot = (width - left - 12) / BARS;
  pen.textAlign = "right", pen.fillStyle = colour("soft");
  for (const db of [0, -20, -40]) {
    rule(pen, colour("grid"), [left, y(db)], [width - 12, y(db)]);
    pen.fillText(db ? `−${-db}` : "0", left - 8, y(db) + 3.5);
  }
  pen.textAlign = "center";
  for (let n = 1; n <= BARS; n++) {
    const top = y(20 * Math.log10(Math.max(amplitudes[n], 1e-9))), x = left + (n - 1) * slot;
    pen.fillStyle = colour(foot - top > 0.5 ? "accent" : "axis");
    pen.beginPath();
    pen.roundRect(x + slot * 0.16, Math.min(top, foot - 1.5), slot * 0.68, Math.max(foot - top, 1.5), 1.5);
    pen.fill();
    pen.fillStyle = colour("soft");
    if (n === 1 || n % 8 === 0) pen.fillText(n, x + slot / 2, foot + 14);
  }
}

/** Draw 20 ms of the current sound from a rising zero crossing, which keeps the picture still. */
export function paintScope(canvas, samples, rate) {
  const { pen, width, height, colour } = sheet(canvas);
  const range = samples.reduce((most, x) => Math.max(most, 1.15 * Math.abs(x)), 0.3);
  for (let part = 1; part < 4; part++) rule(pen, colour("grid"), [part * width / 4, 0], [part * width / 4, height]);
  rule(pen, colour("axis"), [0, height / 2], [width, height / 2]);
  let first = 1;
  while (first < 2048 && !(samples[first - 1] < 0 && samples[first] >= 0)) first++;
  first %= 2048;
  const shown = samples.subarray(first, first + Math.round(0.02 * rate));
  curve(pen, colour("accent"), shown, width, (value) => (1 - value / range) * height / 2);
}

export function paintEnvelope(canvas, { attack, decay, sustain, release }) {
  const { pen, width, height, colour } = sheet(canvas), y = (value) => height - 3 - value * (height - 6);
  const held = attack + decay * 1.2, total = held + release;
  const at = (time) => (time < held ? level({ attack, decay, sustain }, time)
    : level({ attack, decay, sustain }, held) * Math.exp(-(time - held) / constant(release)));
  rule(pen, colour("grid"), [(held / total) * width, 0], [(held / total) * width, height]);
  curve(pen, colour("accent"), Float32Array.from({ length: 300 }, (_, n) => at((n / 299) * total)), width, y, y(0));
}
