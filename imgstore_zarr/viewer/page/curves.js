// Curves: extra data below the timeline, on the same axis, with the same cursor.

import { ask } from "./api.js";
import { palette, prepared } from "./timeline.js";
import { value } from "./text.js";

const MOST_SHOWN = 6;
const SHOWN_AT_FIRST = 2;

export class Curves {
  constructor(chips, element, timeline, { seek }) {
    Object.assign(this, { chips, element, timeline, seek });
    this.channels = [];
    this.shown = new Map();
    this.asked = 0;
  }

  /** Looks for what the first recording has. */
  async find() {
    const facts = this.timeline.facts;
    if (!facts.has_extra || facts.axis !== "time") return;
    let found;
    try {
      found = await ask("recordings/0/curves");
    } catch (error) {
      found = { channels: [], trouble: error.message };
    }
    const { channels, trouble } = found;
    this.channels = channels;
    this.chips.replaceChildren(
      ...channels.map((channel, i) => {
        const chip = document.createElement("button");
        chip.type = "button";
        chip.textContent = channel.name;
        chip.title = channel.samplerate ? `${channel.samplerate} Hz` : "one value for some frames";
        chip.setAttribute("aria-pressed", "false");
        chip.addEventListener("click", () => this.toggle(i));
        return chip;
      }),
    );
    if (trouble) {
      const line = document.createElement("p");
      line.textContent = trouble;
      this.chips.append(line);
    }
    channels.slice(0, SHOWN_AT_FIRST).forEach((_, i) => this.toggle(i));
  }

  toggle(i) {
    const chip = this.chips.children[i];
    if (this.shown.has(i)) {
      this.shown.get(i).box.remove();
      this.shown.delete(i);
      chip.setAttribute("aria-pressed", "false");
      return;
    }
    if (this.shown.size >= MOST_SHOWN) return;
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", this.channels[i].name);
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.seek(this.timeline.valueAt(event.offsetX), true);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) this.seek(this.timeline.valueAt(event.offsetX), true);
    });
    const box = document.createElement("div");
    box.className = "curve";
    const label = document.createElement("p");
    const now = document.createElement("b");
    label.append(this.channels[i].name, now);
    const mark = document.createElement("div");
    mark.className = "cursor";
    box.append(canvas, label, mark);
    this.shown.set(i, { box, canvas, now, mark, curve: null });
    this.element.append(box);
    chip.setAttribute("aria-pressed", "true");
    this.load();
  }

  async load() {
    const asked = ++this.asked;
    const { start, stop } = this.timeline;
    const bins = Math.min(Math.max(Math.round(this.timeline.canvas.clientWidth), 1), 4096);
    await Promise.all(
      [...this.shown].map(async ([i, one]) => {
        try {
          const curve = await ask(`recordings/0/curves/${i}`, { start, stop, bins });
          if (asked === this.asked) one.curve = curve;
        } catch (error) {
          one.curve = { trouble: error.message };
        }
      }),
    );
    if (asked === this.asked) this.draw();
  }

  draw() {
    const color = palette();
    let order = 0;
    for (const { canvas, curve } of this.shown.values()) {
      this.drawOne(canvas, curve, color, color(`curve-${order++ % 4}`));
    }
    this.follow();
  }

  /** Moves the cursors to that of the timeline, and says the values there. */
  follow() {
    for (const { curve, now, mark } of this.shown.values()) {
      this.timeline.placeCursor(mark);
      now.textContent = curve?.trouble ?? (curve?.low ? this.at(curve, this.timeline.cursor) : "");
    }
  }

  drawOne(canvas, curve, color, ink) {
    const { context, width, height } = prepared(canvas);
    context.fillStyle = color("back");
    context.beginPath();
    context.roundRect(0, 0, width, height, 4);
    context.fill();
    const known = curve?.low?.filter((v) => v !== null) ?? [];
    if (!known.length) return;
    const low = Math.min(...known);
    const high = Math.max(...curve.high.filter((v) => v !== null));
    const y = (v) => height - 5 - ((v - low) / (high - low || 1)) * (height - 22);
    const span = (curve.stop - curve.start) / curve.low.length;
    this.trace(context, curve, (bin) => this.timeline.x(curve.start + (bin + 0.5) * span, width), y, ink);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = color("dim");
    context.textAlign = "right";
    context.fillText(`${value(low, 4)} … ${value(high, 4)}`, width - 8, 13);
  }

  /** Draws the band between lowest and highest; lines lead over columns without values, if few. */
  trace(context, curve, x, y, ink) {
    const filled = curve.low.reduce((n, v) => n + (v !== null), 0);
    const farthest = filled ? Math.max((curve.low.length / filled) * 8, 3) : 0;
    context.strokeStyle = ink;
    context.lineWidth = 1.3;
    context.beginPath();
    let last = null;
    curve.low.forEach((low, bin) => {
      if (low === null) return;
      const high = curve.high[bin];
      if (last === null || bin - last > farthest) context.moveTo(x(bin), y(low));
      else context.lineTo(x(bin), y(low));
      if (high !== low) context.lineTo(x(bin), y(high));
      else if (last === null) context.lineTo(x(bin) + 1, y(low));
      last = bin;
    });
    context.stroke();
  }

  /** The value at the cursor, or that of the nearest column that has one. */
  at(curve, cursor) {
    if (cursor === null) return "";
    const span = (curve.stop - curve.start) / curve.low.length;
    const middle = Math.min(Math.max(Math.floor((cursor - curve.start) / span), 0), curve.low.length - 1);
    for (let away = 0; away < 200; away += 1) {
      for (const bin of [middle - away, middle + away]) {
        const low = curve.low[bin];
        if (low === null || low === undefined) continue;
        const high = curve.high[bin];
        return low === high ? value(low) : `${value(low)} … ${value(high)}`;
      }
    }
    return "";
  }
}
