// The piano of DRAW AUDIO: keys on the screen for mouse and fingers, and letters of the computer's keyboard.

const NAMES = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"];
const PLACES = [0, 0.5, 1, 1.5, 2, 3, 3.5, 4, 4.5, 5, 5.5, 6]; // positions of an octave's keys, in widths of a white key
const LETTERS = ["KeyA", "KeyW", "KeyS", "KeyE", "KeyD", "KeyF", "KeyT", "KeyG", "KeyY", "KeyH", "KeyU", "KeyJ", "KeyK",
  "KeyO", "KeyL", "KeyP", "Semicolon"]; // one semitone each, by position on the keyboard, in any layout
const KEYS = 29; // number of keys on the screen, from C to E; the letters start at the second C
const LOWEST = 24, HIGHEST = 84; // range of the first key on the screen, in MIDI keys

/** Name of a MIDI key: 69 is A4. */
export const keyName = (key) => `${NAMES[key % 12]}${Math.floor(key / 12) - 1}`;

export class Piano {
  first = 48; // MIDI key of the first key on the screen
  fingers = new Map(); // index of the key under each pointer

  /** Build the keys in `element`; `press` and `release` are called with a MIDI key. */
  constructor(element, press, release) {
    Object.assign(this, { element, pressed: press, released: release });
    element.innerHTML = Array.from({ length: KEYS }, (_, n) => {
      const place = PLACES[n % 12] + 7 * Math.floor(n / 12), letter = LETTERS[n - 12]?.replace("Key", "") ?? "";
      return `<button class="${place % 1 ? "black" : "white"}" style="--place:${place}" tabindex="${n === 12 ? 0 : -1}">
        <kbd>${letter.replace("Semicolon", ";")}</kbd><i></i></button>`;
    }).join("");
    this.keys = [...element.children];
    element.addEventListener("pointerdown", (event) => {
      element.setPointerCapture(event.pointerId);
      this.slide(event);
    });
    element.addEventListener("pointermove", (event) => this.fingers.has(event.pointerId) && this.slide(event));
    element.addEventListener("lostpointercapture", ({ pointerId }) => {
      this.release(this.fingers.get(pointerId));
      this.fingers.delete(pointerId);
    });
    element.addEventListener("keydown", (event) => this.focused(event));
    element.addEventListener("keyup", ({ key, target }) => this.plays(key) && this.release(this.keys.indexOf(target)));
    this.move(0);
  }

  plays = (key) => key === " " || key === "Enter";

  press(n) {
    if (!this.keys[n] || this.keys[n].classList.contains("on")) return;
    this.keys[n].classList.add("on");
    this.pressed(this.first + n);
  }

  release(n) {
    if (!this.keys[n]?.classList.contains("on")) return;
    this.keys[n].classList.remove("on");
    this.released(this.first + n);
  }

  releaseAll() {
    this.keys.forEach((_, n) => this.release(n));
  }

  /** Shift the keys by so many semitones, within their range. */
  move(by) {
    this.releaseAll();
    this.first = Math.min(HIGHEST, Math.max(LOWEST, this.first + by));
    this.keys.forEach((key, n) => {
      key.ariaLabel = keyName(this.first + n);
      key.lastChild.textContent = n % 12 ? "" : key.ariaLabel;
    });
  }

  /** Play the key under a pointer; it can slide from key to key. */
  slide({ pointerId, clientX, clientY }) {
    const n = this.keys.indexOf(document.elementFromPoint(clientX, clientY)?.closest("button"));
    if (n === this.fingers.get(pointerId)) return;
    this.release(this.fingers.get(pointerId));
    this.fingers.set(pointerId, n);
    this.press(n);
  }

  /** Arrow keys move the focus between the keys; the Tab key stops at them once. */
  focused(event) {
    const n = this.keys.indexOf(event.target), next = this.keys[n + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0)];
    if (this.plays(event.key) && !event.repeat) this.press(n);
    if (this.plays(event.key) || event.key.startsWith("Arrow")) event.preventDefault();
    if (next === event.target || !next?.offsetParent) return;
    event.target.tabIndex = -1, next.tabIndex = 0;
    next.focus();
  }

  /** Handle a key of the computer's keyboard, pressed or released. */
  typed({ code, type }) {
    const n = LETTERS.indexOf(code) + 12;
    if (n >= 12) this[type === "keydown" ? "press" : "release"](n);
  }

  get octave() {
    return this.keys[12].ariaLabel;
  }

  get ends() {
    return { down: this.first === LOWEST, up: this.first === HIGHEST };
  }
}
