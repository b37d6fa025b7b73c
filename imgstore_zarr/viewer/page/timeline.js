// Timeline: all recordings over time, one lane each, with gaps and damage; to look for a moment.

import { ask, askFrame } from "./api.js";
import * as text from "./text.js";

const TICKS = 20;
const LANE = 22;
const LEAST_SPAN = 1e-3;

export function palette() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

/** A canvas for drawing in units of the page, with its size. */
export function prepared(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

export class Timeline {
  /** `seek(value, preview)` is called with a place on the axis; `moved` when another part is seen. */
  constructor(element, recordings, { seek, moved }) {
    this.element = element;
    this.canvas = element.querySelector("canvas");
    this.recordings = recordings;
    this.seek = seek;
    this.moved = moved;
    this.lanes = recordings.map(() => null);
    this.cursor = null;
    this.hover = null;
    this.range = { from: null, to: null };
    this.start = 0;
    this.stop = 1;
    this.extent = [0, 1];
    this.asked = 0;
    this.canvas.style.height = `${LANE * recordings.length + TICKS + 20}px`;
    this.mark = element.querySelector(".cursor");
    this.peek = new Peek(element, recordings[0]);
    new ResizeObserver(() => this.load()).observe(this.canvas);
    this.listen();
  }

  get facts() {
    return this.recordings[0];
  }

  /** Fits the axis to all recordings that have one in common. */
  fit() {
    const known = this.recordings.filter((facts) => facts.axis === this.facts.axis && facts.first);
    const ends = (facts) =>
      facts.axis === "time" ? [facts.first.time, facts.last.time] : [0, Math.max(facts.frames - 1, 1)];
    const mine = known.length ? ends(this.facts) : [0, 1];
    const overlapping = known.map(ends).filter(([low, high]) => low <= mine[1] && high >= mine[0]);
    this.extent = [Math.min(...overlapping.map(([low]) => low), mine[0]), Math.max(...overlapping.map(([, high]) => high), mine[1])];
    if (!(this.extent[0] < this.extent[1])) this.extent[1] = this.extent[0] + 1;
    [this.start, this.stop] = this.extent;
    this.load();
  }

  get whole() {
    return this.start <= this.extent[0] && this.stop >= this.extent[1];
  }

  /** Asks for what is seen, once nobody moves it any more. */
  load() {
    this.draw();
    clearTimeout(this.loading);
    this.loading = setTimeout(() => this.loadNow(), 40);
  }

  async loadNow() {
    const asked = ++this.asked;
    const bins = Math.min(Math.max(Math.round(this.canvas.clientWidth), 1), 4096);
    const range = { start: this.start, stop: this.stop, bins };
    const lanes = await Promise.all(
      this.recordings.map((facts, i) => {
        if (!facts.frames) return null;
        return ask(`recordings/${i}/timeline`, facts.axis === this.facts.axis ? range : { bins }).catch(() => null);
      }),
    );
    if (asked !== this.asked) return;
    this.lanes = lanes;
    this.draw();
    this.moved();
  }

  x(value, width = this.canvas.clientWidth) {
    return ((value - this.start) / (this.stop - this.start)) * width;
  }

  valueAt(x) {
    const value = this.start + (x / this.canvas.clientWidth) * (this.stop - this.start);
    const within = Math.min(Math.max(value, this.extent[0]), this.extent[1]);
    return this.facts.axis === "position" ? Math.round(within) : within;
  }

  setCursor(value) {
    this.cursor = value;
    const span = this.stop - this.start;
    if (!this.whole && !this.dragging && value !== null && (value < this.start || value > this.stop)) {
      this.show(value - span * 0.1, value + span * 0.9);
    } else {
      this.placeCursor();
    }
  }

  /** Moves the cursor, which is no part of the drawing: it moves with every frame. */
  placeCursor(mark = this.mark) {
    const x = this.cursor === null ? -1 : this.x(this.cursor);
    mark.hidden = x < -1 || x > this.canvas.clientWidth + 1 || this.cursor === null;
    mark.style.transform = `translateX(${x}px)`;
  }

  /** Shows from one value to another, as far as the recordings go. */
  show(start, stop) {
    const [low, high] = this.extent;
    const span = Math.min(Math.max(stop - start, LEAST_SPAN), high - low);
    this.start = Math.min(Math.max(start, low), high - span);
    this.stop = this.start + span;
    this.load();
  }

  zoom(factor, around = this.cursor ?? (this.start + this.stop) / 2) {
    const at = Math.min(Math.max(around, this.start), this.stop);
    this.show(at - (at - this.start) / factor, at + (this.stop - at) / factor);
  }

  /** The next gap or damage after the cursor, or before it. */
  nextMark(direction) {
    const lane = this.lanes[0];
    if (!lane || this.cursor === null) return null;
    const at = [...lane.gaps.map((gap) => gap.stop), ...lane.problems.filter((p) => p.start !== null).map((p) => p.start)];
    const beyond = at.filter((value) => (value - this.cursor) * direction > 1e-9);
    if (!beyond.length) return null;
    return direction > 0 ? Math.min(...beyond) : Math.max(...beyond);
  }

  listen() {
    const { canvas } = this;
    const place = (event) => event.clientX - canvas.getBoundingClientRect().left;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.dragging = true;
      this.element.focus({ preventScroll: true });
      this.seek(this.valueAt(place(event)), true);
    });
    canvas.addEventListener("pointermove", (event) => {
      this.hover = place(event);
      if (this.dragging) this.seek(this.valueAt(this.hover), true);
      else this.peek.at(this.hover, this.valueAt(this.hover), this.problemsAt(this.hover), this.stop - this.start);
      this.draw();
    });
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, () => {
        this.dragging = false;
      });
    }
    canvas.addEventListener("pointerleave", () => {
      this.hover = null;
      this.peek.away();
      this.draw();
    });
    canvas.addEventListener("dblclick", () => this.show(...this.extent));
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const span = this.stop - this.start;
        if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
          const by = ((event.deltaX || event.deltaY) / canvas.clientWidth) * span;
          this.show(this.start + by, this.stop + by);
        } else {
          this.zoom(Math.exp(-event.deltaY * 0.002), this.valueAt(place(event)));
        }
      },
      { passive: false },
    );
  }

  problemsAt(x) {
    const near = (mark) => mark.start !== null && this.x(mark.start) - 4 <= x && this.x(mark.stop) + 4 >= x;
    const lane = this.lanes[0];
    if (!lane?.frames) return [];
    return [
      ...lane.gaps.filter(near).map((gap) => `${text.plural(gap.missing, "frame")} dropped`),
      ...lane.problems.filter(near).map((problem) => problem.kind.replaceAll("-", " ") + (problem.chunk === null ? "" : ` (chunk ${problem.chunk})`)),
    ];
  }

  draw() {
    const color = palette();
    const { context, width } = prepared(this.canvas);
    const bottom = 6 + LANE * this.lanes.length;
    this.lanes.forEach((lane, i) => this.drawLane(context, color, lane, i, width));
    this.drawTicks(context, color, width, bottom);
    const { from, to } = this.range;
    if (from !== null || to !== null) {
      const left = from === null ? 0 : this.x(from);
      const right = to === null ? width : this.x(to);
      context.fillStyle = color("accent-soft");
      context.fillRect(left, 2, Math.max(right - left, 1), bottom - 2);
      context.fillStyle = color("accent");
      context.fillRect(left, 2, 2, bottom - 2);
      context.fillRect(right - 2, 2, 2, bottom - 2);
    }
    if (!this.whole) {
      const [low, high] = this.extent;
      context.fillStyle = color("line");
      context.fillRect(0, bottom + TICKS + 6, width, 5);
      context.fillStyle = color("accent");
      const left = ((this.start - low) / (high - low)) * width;
      context.fillRect(left, bottom + TICKS + 6, Math.max(((this.stop - this.start) / (high - low)) * width, 3), 5);
    }
    if (this.hover !== null && !this.dragging) {
      context.fillStyle = color("dim");
      context.fillRect(this.hover - 0.5, 2, 1, bottom - 2);
    }
    this.placeCursor();
  }

  drawLane(context, color, lane, i, width) {
    const top = 6 + LANE * i;
    const height = LANE - 4;
    context.fillStyle = color("back");
    context.beginPath();
    context.roundRect(0, top, width, height, 4);
    context.fill();
    if (!lane?.frames) return;
    const shared = lane.axis === this.facts.axis;
    const [start, stop] = [lane.start, lane.stop];
    // What was asked for before the view moved is drawn where it belongs now.
    const at = shared ? (value) => this.x(value, width) : (value) => ((value - start) / (stop - start)) * width;
    const bins = lane.frames.length;
    const span = (stop - start) / bins;
    const sorted = lane.frames.filter((n) => n > 0).sort((a, b) => a - b);
    const usual = sorted[Math.floor(sorted.length / 2)] || 1;
    context.fillStyle = color("accent");
    context.globalAlpha = i ? 0.35 : 0.5;
    // Where there are fewer frames than columns, one stands for the time until the next.
    let open = null;
    for (let bin = 0; bin <= bins; bin += 1) {
      const full = bin < bins && lane.frames[bin] > 0;
      if (full && usual > 1) {
        const part = Math.min(lane.frames[bin] / usual, 1);
        const x = at(start + bin * span);
        context.fillRect(x, top + height * (1 - part), at(start + (bin + 1) * span) - x + 0.3, height * part);
      } else if (full) {
        const x = at(start + bin * span);
        if (open !== null && (bin - open) * span < 4 * this.interval(i)) {
          const left = at(start + open * span);
          context.fillRect(left, top + 2, Math.max(x - left - 0.6, 0.8), height - 2);
        }
        context.fillRect(x, top + 2, Math.max(1, Math.min(this.interval(i) * 0.8, span) / span * (at(start + span) - at(start))), height - 2);
        open = bin;
      }
    }
    context.globalAlpha = 1;
    context.fillStyle = color("dim");
    for (const chunk of lane.chunks) context.fillRect(at(chunk), top + height - 4, 1, 4);
    for (const gap of lane.gaps) {
      const left = at(gap.start);
      context.fillStyle = color("gap");
      const wide = Math.max(at(gap.stop) - left, 2);
      context.fillRect(left, top, wide, 3);
      context.globalAlpha = 0.25;
      context.fillRect(left, top, wide, height);
      context.globalAlpha = 1;
    }
    for (const problem of lane.problems) {
      if (problem.start === null) continue;
      this.drawDamage(context, color, at(problem.start), at(problem.stop), top, height);
    }
  }

  interval(i) {
    const facts = this.recordings[i];
    return facts.axis === "time" ? 1 / (facts.rate || 25) : 1;
  }

  drawDamage(context, color, left, right, top, height) {
    const middle = (left + right) / 2;
    const wide = Math.max(right - left, 4);
    context.save();
    context.beginPath();
    context.rect(middle - wide / 2, top, wide, height);
    context.fillStyle = color("bad-soft");
    context.fill();
    context.clip();
    context.strokeStyle = color("bad");
    context.lineWidth = 1.5;
    context.beginPath();
    const from = Math.max(middle - wide / 2, -height);
    const to = Math.min(middle + wide / 2, this.canvas.clientWidth + height);
    for (let x = from - height; x < to; x += 5) {
      context.moveTo(x, top + height);
      context.lineTo(x + height, top);
    }
    context.stroke();
    context.restore();
    context.fillStyle = color("bad");
    context.fillRect(middle - wide / 2, top + height - 2, wide, 2);
  }

  drawTicks(context, color, width, top) {
    const isTime = this.facts.axis === "time";
    const step = text.step(this.stop - this.start, Math.max(width / 110, 1), isTime && this.facts.unix);
    const first = this.facts.first?.time ?? 0;
    // Ticks stand at round times of the recording's clock.
    const zero = !isTime ? 0 : this.facts.unix ? -text.offset(this.facts.zone, this.start) : first;
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillStyle = color("dim");
    for (let n = Math.ceil((this.start - zero) / step); zero + n * step <= this.stop; n += 1) {
      const value = zero + n * step;
      const x = this.x(value, width);
      context.fillRect(x, top, 1, 4);
      if (x > 26 && x < width - 26) context.fillText(text.tick(value, step, this.facts, first), x, top + 16);
    }
  }
}

/** A small picture of the frame below the pointer. */
class Peek {
  constructor(element, facts) {
    this.figure = element.querySelector("#peek");
    this.canvas = element.querySelector("#peek-canvas");
    this.text = element.querySelector("#peek-text");
    this.facts = facts;
    this.look = {};
    this.wanted = null;
    this.busy = false;
  }

  at(x, value, marks, span) {
    if (!this.facts.frames) return;
    this.figure.hidden = false;
    const half = this.figure.offsetWidth / 2;
    const width = this.figure.parentElement.clientWidth;
    this.figure.style.left = `${Math.min(Math.max(x - half, 0), width - 2 * half)}px`;
    this.marks = marks;
    this.wanted = { value, span };
    if (!this.busy) this.follow();
  }

  away() {
    this.figure.hidden = true;
    this.wanted = null;
  }

  async follow() {
    this.busy = true;
    while (this.wanted) {
      const { value } = this.wanted;
      this.wanted = null;
      const target = this.facts.axis === "time" ? { time: value } : { position: value };
      const { width, height } = this.canvas;
      const answer = await askFrame(0, { ...target, ...this.look, width, height }).catch(() => null);
      if (answer && !this.figure.hidden) this.show(answer);
      answer?.bitmap?.close();
      // Whoever plays comes first.
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
    this.busy = false;
  }

  show({ bitmap, frame }) {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    if (bitmap) {
      const scale = Math.min(width / this.facts.width, height / this.facts.height);
      const [w, h] = [this.facts.width * scale, this.facts.height * scale];
      context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
    }
    const when = frame.local ? frame.local.slice(11, 23) : `${text.value(frame.time, 9)} s`;
    this.text.textContent = [`${frame.number} · ${when}`, ...this.marks.slice(0, 2)].join(" · ");
  }
}
