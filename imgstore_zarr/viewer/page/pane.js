// Pane: one recording on the screen. Asks for frames as large as they are shown, and draws them.

import { askFrame } from "./api.js";
import { difference } from "./text.js";

const KEPT_BYTES = 48 * 2 ** 20;
const PREVIEW = 224;
const MOST_PIXELS = 4096;
const LARGEST_SCALE = 64;

export class Pane {
  /** Frames of `number`, in a canvas; `shown` is called whenever another one is on the screen. */
  constructor(number, facts, shown) {
    this.number = number;
    this.facts = facts;
    this.shown = shown;
    this.look = { black: null, white: null, gamma: 1, map: "gray" };
    this.view = { scale: null, x: facts.width / 2, y: facts.height / 2 };
    this.current = null;
    this.probe = null;
    this.wanted = null;
    this.stale = false;
    this.busy = false;
    this.playing = false;
    this.kept = new Map();
    this.keptBytes = 0;
    this.build();
  }

  build() {
    this.element = document.createElement("div");
    this.element.className = "pane";
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${this.facts.name}: no frame yet`);
    this.label = document.createElement("div");
    this.label.className = "label";
    this.name = document.createElement("b");
    this.name.textContent = this.facts.name;
    this.delta = document.createElement("span");
    this.label.append(this.name, this.delta);
    this.zoom = document.createElement("div");
    this.zoom.className = "zoom";
    this.zoom.hidden = true;
    this.card = document.createElement("div");
    this.card.className = "card";
    this.card.hidden = true;
    this.element.append(this.canvas, this.label, this.zoom, this.card);
    new ResizeObserver(() => this.resized()).observe(this.element);
  }

  resized() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width || !height) return;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.draw();
    this.sharpen();
  }

  /** Pixels of the canvas for one of the image, and where its upper left corner is. */
  geometry() {
    const { width, height } = this.canvas;
    const fit = Math.min(width / this.facts.width, height / this.facts.height);
    if (this.view.scale === null) {
      return {
        scale: fit,
        fit,
        left: (width - this.facts.width * fit) / 2,
        top: (height - this.facts.height * fit) / 2,
      };
    }
    const scale = this.view.scale;
    return { scale, fit, left: width / 2 - this.view.x * scale, top: height / 2 - this.view.y * scale };
  }

  /** Which part of the image is on the canvas, and in which size to ask for it. */
  framing(preview) {
    const { scale, left, top } = this.geometry();
    const { width, height } = this.facts;
    const within = (at, size) => Math.min(Math.max(at, 0), size);
    // Some more on each side, for small moves.
    const more = this.view.scale === null ? 0 : 0.1;
    const x0 = within(Math.floor((-left - this.canvas.width * more) / scale), width - 1);
    const y0 = within(Math.floor((-top - this.canvas.height * more) / scale), height - 1);
    const x1 = Math.max(within(Math.ceil((this.canvas.width * (1 + more) - left) / scale), width), x0 + 1);
    const y1 = Math.max(within(Math.ceil((this.canvas.height * (1 + more) - top) / scale), height), y0 + 1);
    const whole = x0 === 0 && y0 === 0 && x1 === width && y1 === height;
    const size = (span) => Math.min(Math.max(Math.ceil(span * Math.min(scale, 1)), 1), MOST_PIXELS);
    const box = { width: size(x1 - x0), height: size(y1 - y0) };
    if (preview) Object.assign(box, { width: Math.min(box.width, PREVIEW), height: Math.min(box.height, PREVIEW) });
    return {
      ...box,
      window: whole ? null : [y0, y1, x0, x1].join(","),
      // Where single pixels are seen, they are to be exact.
      type: !preview && scale >= 3 && (x1 - x0) * (y1 - y0) < 600_000 ? "png" : "jpeg",
    };
  }

  /** Asks for a frame, or takes one that was kept. */
  async fetch(target, { preview = false, ahead = 0 } = {}) {
    const framing = this.framing(preview);
    const parameters = { ...framing, ...this.look };
    const key = target.position === undefined ? null : JSON.stringify([target.position, this.facts.generation, parameters]);
    const known = key && this.kept.get(key);
    if (known) {
      this.kept.delete(key);
      this.kept.set(key, known);
      known.done = false;
      return known;
    }
    const answer = await askFrame(this.number, { ...target, ...parameters, ahead: ahead || null });
    if (answer === null) return null;
    answer.window = framing.window ? framing.window.split(",").map(Number) : [0, this.facts.height, 0, this.facts.width];
    answer.framing = JSON.stringify([framing, this.look]);
    answer.preview = preview;
    if (!preview && answer.bitmap) {
      this.keep(JSON.stringify([answer.frame.position, this.facts.generation, parameters]), answer);
    }
    return answer;
  }

  keep(key, answer) {
    const size = (one) => one.bitmap.width * one.bitmap.height * 4;
    if (this.kept.has(key)) return;
    this.kept.set(key, answer);
    this.keptBytes += size(answer);
    for (const [old, one] of this.kept) {
      if (this.keptBytes <= KEPT_BYTES || one === answer) break;
      this.kept.delete(old);
      this.keptBytes -= size(one);
      // One that waits to be shown is closed afterwards.
      if (one !== this.current && one.done) one.bitmap.close();
      else one.orphan = true;
    }
  }

  /** Shows a frame as soon as it is there; of several wishes the newest counts. */
  seek(target, preview = false) {
    this.wanted = { target, preview };
    if (!this.busy) this.follow();
  }

  /** Shows the same frame again, in the size and the look of now; what is wished meanwhile goes first. */
  refresh() {
    this.stale = true;
    if (!this.busy) this.follow();
  }

  /** Shows what is at the same position of a recording that is another one now. */
  again() {
    const last = this.facts.frames - 1;
    if (this.current && last >= 0) this.seek({ position: Math.min(this.current.frame.position, last) });
  }

  /** Leaves it to the player which frames are shown, or takes it back. */
  setPlaying(playing) {
    this.playing = playing;
    if (playing) this.wanted = null;
  }

  async follow() {
    this.busy = true;
    try {
      for (let wish = this.nextWish(); wish; wish = this.nextWish()) {
        let answer;
        try {
          answer = await this.fetch(wish.target, wish);
        } catch (error) {
          this.fail(error);
          continue;
        }
        if (this.playing) continue;
        if (answer === null) this.wanted ??= wish;
        else {
          this.show(answer);
          if (wish.preview && !answer.damaged) this.wanted ??= { target: { position: answer.frame.position }, preview: false };
        }
      }
    } finally {
      this.busy = false;
    }
  }

  nextWish() {
    const { wanted, stale } = this;
    this.wanted = null;
    this.stale = false;
    if (wanted) return wanted;
    const again = stale && !this.playing && this.current && !this.current.damaged;
    return again ? { target: { position: this.current.frame.position }, preview: false } : null;
  }

  fail(error) {
    this.canvas.dispatchEvent(new CustomEvent("trouble", { bubbles: true, detail: error }));
  }

  /** Draws what `fetch` gave. */
  show(answer) {
    const before = this.current;
    this.current = answer;
    answer.done = true;
    const loose = before && before !== answer && before.bitmap && (before.preview || before.orphan);
    if (loose) before.bitmap.close();
    this.card.hidden = !answer.damaged;
    if (answer.damaged) this.explain(answer.damaged);
    const { position, number } = answer.frame;
    Object.assign(this.canvas.dataset, {
      position,
      number,
      quality: answer.damaged ? "damaged" : answer.preview ? "preview" : "sharp",
    });
    this.canvas.setAttribute("aria-label", `${this.facts.name}: frame ${number}${answer.damaged ? ", which cannot be read" : ""}`);
    this.draw();
    this.canvas.dispatchEvent(new CustomEvent("shown", { bubbles: true, detail: { recording: this.number, ...answer.frame } }));
    this.shown(this, answer);
  }

  explain({ message, chunk, moment }) {
    const title = document.createElement("h3");
    title.textContent = "This frame cannot be read";
    const text = document.createElement("p");
    text.textContent = message;
    const place = document.createElement("small");
    place.textContent = `Chunk ${chunk}, frame ${moment.number}, position ${moment.position}. Other frames can be looked at.`;
    const box = document.createElement("div");
    box.append(title, text, place);
    this.card.replaceChildren(box);
  }

  /** Says how far in time this frame is from that of the first recording. */
  compare(time) {
    const own = this.current?.frame.time;
    this.delta.textContent = time === null || own === null || own === undefined ? "" : difference(own - time);
  }

  draw() {
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const { scale, left, top } = this.geometry();
    this.zoom.hidden = this.view.scale === null;
    this.zoom.textContent = `${Math.round((scale / (window.devicePixelRatio || 1)) * 100)} %`;
    // One that was shown before, and closed since, has no width.
    if (this.current?.bitmap?.width) {
      const [y0, y1, x0, x1] = this.current.window;
      context.imageSmoothingEnabled = scale < 1.5 || this.current.preview;
      context.imageSmoothingQuality = "high";
      context.drawImage(this.current.bitmap, left + x0 * scale, top + y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale);
    }
    if (this.probe) {
      const x = left + this.probe.x * scale;
      const y = top + this.probe.y * scale;
      const size = Math.max(scale, 7);
      context.lineWidth = 1.5;
      for (const [color, wider] of [["#000c", 1.5], ["#8fdccd", 0]]) {
        context.strokeStyle = color;
        context.strokeRect(x + scale / 2 - size / 2 - wider, y + scale / 2 - size / 2 - wider, size + 2 * wider, size + 2 * wider);
      }
    }
  }

  /** Asks for the part that is seen, in the size in which it is seen, if that is another one now. */
  sharpen() {
    clearTimeout(this.sharpening);
    this.sharpening = setTimeout(() => {
      const now = JSON.stringify([this.framing(false), this.look]);
      if (this.current && this.current.framing !== now) this.refresh();
    }, 60);
  }

  /** The pixel of the image at a place on the page; null beside it. */
  pixelAt(clientX, clientY) {
    const box = this.canvas.getBoundingClientRect();
    const { scale, left, top } = this.geometry();
    const ratio = this.canvas.width / box.width;
    const x = Math.floor(((clientX - box.left) * ratio - left) / scale);
    const y = Math.floor(((clientY - box.top) * ratio - top) / scale);
    return x >= 0 && y >= 0 && x < this.facts.width && y < this.facts.height ? { x, y } : null;
  }

  /** Makes the image larger around a place of the page, by default around the middle. */
  zoomBy(factor, clientX, clientY) {
    const box = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / box.width;
    const at = {
      x: clientX === undefined ? this.canvas.width / 2 : (clientX - box.left) * ratio,
      y: clientY === undefined ? this.canvas.height / 2 : (clientY - box.top) * ratio,
    };
    const { scale, fit, left, top } = this.geometry();
    const larger = Math.min(scale * factor, LARGEST_SCALE * ratio);
    if (factor < 1 && larger <= Math.min(fit, ratio) * 1.001) return this.fit();
    const x = (at.x - left) / scale;
    const y = (at.y - top) / scale;
    Object.assign(this.view, {
      scale: larger,
      x: x + (this.canvas.width / 2 - at.x) / larger,
      y: y + (this.canvas.height / 2 - at.y) / larger,
    });
    return this.moved();
  }

  /** Moves the image by pixels of the page. */
  panBy(dx, dy) {
    if (this.view.scale === null) return;
    const ratio = window.devicePixelRatio || 1;
    this.view.x -= (dx * ratio) / this.view.scale;
    this.view.y -= (dy * ratio) / this.view.scale;
    this.moved();
  }

  fit() {
    Object.assign(this.view, { scale: null, x: this.facts.width / 2, y: this.facts.height / 2 });
    this.moved();
  }

  /** Shows each pixel of the image as one of the page. */
  oneToOne() {
    this.view.scale = window.devicePixelRatio || 1;
    this.moved();
  }

  moved() {
    if (this.view.scale !== null) {
      this.view.x = Math.min(Math.max(this.view.x, 0), this.facts.width);
      this.view.y = Math.min(Math.max(this.view.y, 0), this.facts.height);
    }
    this.canvas.dispatchEvent(new CustomEvent("viewed", { bubbles: true, detail: this }));
    this.draw();
    this.sharpen();
  }
}
