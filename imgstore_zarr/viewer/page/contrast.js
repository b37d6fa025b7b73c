// Contrast: which pixels are black and white, gamma, and colours, of the recording that is active.

import { ask } from "./api.js";
import { palette, prepared } from "./timeline.js";
import { value } from "./text.js";

const STEPS = 1000;
const element = (id) => document.getElementById(id);

export class Contrast {
  /** `changed(pane)` is called when a pane is to be shown in another way. */
  constructor(maps, changed) {
    this.changed = changed;
    this.pane = null;
    this.levels = null;
    this.wanted = null;
    this.busy = false;
    // Of each pane, the question for levels whose answer still counts.
    this.asked = new WeakMap();
    element("map").append(
      ...maps.map((name) => {
        const option = document.createElement("option");
        option.textContent = name;
        return option;
      }),
    );
    for (const end of ["black", "white"]) {
      element(end).addEventListener("change", (event) => {
        const number = event.target.valueAsNumber;
        if (Number.isFinite(number)) this.set({ [end]: number });
      });
      element(`${end}-slider`).addEventListener("input", (event) => {
        const [low, high] = this.span();
        this.set({ [end]: this.rounded(low + (event.target.valueAsNumber / STEPS) * (high - low)) });
      });
    }
    element("gamma").addEventListener("input", (event) => {
      this.set({ gamma: Number((10 ** (event.target.valueAsNumber / 100)).toFixed(3)) });
    });
    element("map").addEventListener("change", (event) => this.set({ map: event.target.value }));
    element("auto").addEventListener("click", () => this.auto());
    element("reset").addEventListener("click", () => this.reset());
  }

  rounded(number) {
    return this.pane.facts.dtype.startsWith("float") ? Number(number.toPrecision(6)) : Math.round(number);
  }

  /** From where to where levels can be set. */
  span() {
    const { dtype } = this.pane.facts;
    if (dtype === "uint8" || dtype === "bool") return [0, 255];
    if (!this.levels) return [0, 65535];
    const { black, white } = this.pane.look;
    const low = Math.min(this.levels.low, black ?? this.levels.low);
    const high = Math.max(this.levels.high, white ?? this.levels.high);
    return low < high ? [low, high] : [low, low + 1];
  }

  activate(pane) {
    this.pane = pane;
    this.levels = null;
    element("contrast-name").textContent = pane.facts.name;
    element("map-row").hidden = pane.facts.channels >= 3;
    this.fill();
    this.measure();
  }

  /** Whether pixels need levels before anything can be seen of them. */
  static needsLevels(facts) {
    return facts.dtype !== "uint8" && facts.dtype !== "bool";
  }

  /** Whether a pane has none yet that were taken from a frame. */
  static lacksLevels({ facts, look }) {
    return Contrast.needsLevels(facts) && look.black === null && look.white === null;
  }

  set(change) {
    if ("black" in change || "white" in change) this.asked.delete(this.pane);
    Object.assign(this.pane.look, change);
    this.fill();
    this.changed(this.pane);
  }

  /** Levels that show nearly all pixels of the frame, unless others are set before they are known. */
  async auto(pane = this.pane) {
    const position = pane.current?.frame.position ?? 0;
    const question = {};
    this.asked.set(pane, question);
    const levels = await ask(`recordings/${pane.number}/levels`, { position }).catch((error) => pane.fail(error));
    if (!levels || levels.damaged || this.asked.get(pane) !== question) return;
    Object.assign(pane.look, { black: levels.black, white: levels.white });
    if (pane === this.pane) {
      this.levels = levels;
      this.fill();
    }
    this.changed(pane);
  }

  reset() {
    this.asked.delete(this.pane);
    this.pane.look = { black: null, white: null, gamma: 1, map: "gray" };
    if (Contrast.needsLevels(this.pane.facts)) this.auto();
    else this.set({});
  }

  nextMap() {
    if (this.pane.facts.channels >= 3) return;
    const { options } = element("map");
    const at = [...options].findIndex((option) => option.value === this.pane.look.map);
    this.set({ map: options[(at + 1) % options.length].value });
  }

  /** Draws the histogram of the frame that is shown, when there is time for it. */
  async measure() {
    this.wanted = this.pane;
    if (this.busy) return;
    this.busy = true;
    while (this.wanted) {
      const pane = this.wanted;
      this.wanted = null;
      const position = pane.current?.frame.position;
      if (position === undefined) continue;
      if (pane.current.damaged) {
        this.levels = null;
        this.fill();
        continue;
      }
      const levels = await ask(`recordings/${pane.number}/levels`, { position }).catch(() => null);
      if (levels && !levels.damaged && pane === this.pane) {
        this.levels = levels;
        this.fill();
      }
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
    this.busy = false;
  }

  fill() {
    const { look } = this.pane;
    const [low, high] = this.span();
    for (const [end, otherwise] of [["black", low], ["white", high]]) {
      const number = look[end] ?? otherwise;
      if (document.activeElement !== element(end)) element(end).value = value(number, 6);
      element(`${end}-slider`).value = ((number - low) / (high - low)) * STEPS;
      element(`${end}-slider`).setAttribute("aria-valuetext", value(number, 6));
    }
    element("gamma").value = Math.round(Math.log10(look.gamma) * 100);
    element("gamma-text").value = look.gamma.toFixed(2);
    element("map").value = look.map;
    this.draw();
  }

  draw() {
    const canvas = element("histogram");
    if (!canvas.clientWidth) return;
    const color = palette();
    const { context, width, height } = prepared(canvas);
    const [low, high] = this.span();
    const x = (number) => ((number - low) / (high - low)) * width;
    if (this.levels) {
      const { counts } = this.levels;
      const wide = (this.levels.high - this.levels.low || 1) / counts.length;
      const most = Math.max(...counts);
      context.fillStyle = color("accent");
      context.globalAlpha = 0.6;
      counts.forEach((count, i) => {
        const left = x(this.levels.low + i * wide);
        const tall = Math.sqrt(count / most) * (height - 4);
        context.fillRect(left, height - tall, Math.max(x(this.levels.low + (i + 1) * wide) - left - 0.4, 0.6), tall);
      });
      context.globalAlpha = 1;
    }
    const { look } = this.pane;
    const [black, white] = [x(look.black ?? low), x(look.white ?? high)];
    context.strokeStyle = color("text");
    context.lineWidth = 1.3;
    context.beginPath();
    context.moveTo(0, height - 1);
    context.lineTo(black, height - 1);
    for (let i = 0; i <= 24; i += 1) {
      context.lineTo(black + ((white - black) * i) / 24, height - 1 - (height - 3) * (i / 24) ** (1 / look.gamma));
    }
    context.lineTo(width, 2);
    context.stroke();
  }
}
