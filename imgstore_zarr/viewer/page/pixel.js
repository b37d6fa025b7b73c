// Pixel: the values of the pixel that is pointed at, and of those around it.

import { ask } from "./api.js";
import { value } from "./text.js";

const AROUND = 8;
const TABLE = 2;
const element = (id) => document.getElementById(id);

export class Pixel {
  constructor() {
    this.at = null;
    this.known = null;
    this.busy = false;
  }

  /** Shows the values of a pixel of what a pane shows; `at` is null where there is none. */
  point(pane, at) {
    this.at = at && { pane, ...at };
    if (!at) return;
    this.show();
    if (!this.busy) this.follow();
  }

  /** Shows what has become of the pixel in the frame that is shown now. */
  refresh(pane) {
    if (this.at?.pane === pane) this.point(pane, this.at);
  }

  values(y, x) {
    const { known, at } = this;
    const frame = at.pane.current?.frame.position;
    if (!known || known.pane !== at.pane || known.position !== frame) return undefined;
    return known.values[y - known.y]?.[x - known.x];
  }

  async follow() {
    this.busy = true;
    while (this.at && this.at.pane.current && !this.at.pane.current.damaged) {
      const { pane, x, y } = this.at;
      const complete = this.values(Math.max(y - TABLE, 0), Math.max(x - TABLE, 0)) !== undefined
        && this.values(Math.min(y + TABLE, pane.facts.height - 1), Math.min(x + TABLE, pane.facts.width - 1)) !== undefined;
      if (complete) break;
      const { position } = pane.current.frame;
      const answer = await ask(`recordings/${pane.number}/pixels`, { position, y, x, around: AROUND }).catch(() => null);
      if (answer?.values) this.known = { pane, position, ...answer };
      else break;
      if (this.at) this.show();
    }
    this.busy = false;
  }

  show() {
    const { x, y } = this.at;
    const said = (one) => (Array.isArray(one) ? one.map((v) => value(v)).join(" ") : value(one));
    element("pixel-place").textContent = `x ${x}, y ${y}`;
    const here = this.values(y, x);
    if (here === undefined) return;
    element("pixel-value").textContent = Array.isArray(here) && here.length === 3 ? `B G R  ${said(here)}` : said(here);
    const rows = [];
    for (let dy = -TABLE; dy <= TABLE; dy += 1) {
      const row = document.createElement("tr");
      for (let dx = -TABLE; dx <= TABLE; dx += 1) {
        const cell = document.createElement("td");
        const one = this.values(y + dy, x + dx);
        cell.textContent = one === undefined ? "" : said(Array.isArray(one) ? one.map((v) => value(v, 3)) : one);
        if (!dx && !dy) cell.className = "here";
        row.append(cell);
      }
      rows.push(row);
    }
    element("pixel-table").replaceChildren(...rows);
  }
}
