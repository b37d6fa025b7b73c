// Movie: a range of frames as an mp4 file.

import { ask, download, order } from "./api.js";
import { count } from "./text.js";

const element = (id) => document.getElementById(id);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export class MovieDialog {
  constructor(most) {
    this.most = most;
    this.running = false;
    element("movie-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.make();
    });
    element("movie-close").addEventListener("click", () => this.close());
    element("movie").addEventListener("cancel", (event) => {
      event.preventDefault();
      this.close();
    });
  }

  /** Opens for a pane; `range` is what is marked on the timeline, as positions. */
  open(pane, range, rate) {
    this.pane = pane;
    const last = Math.max(pane.facts.frames - 1, 0);
    for (const [id, at] of [["movie-start", range.start], ["movie-stop", range.stop - 1]]) {
      element(id).max = last;
      element(id).value = Math.min(Math.max(at, 0), last);
    }
    element("movie-rate").value = Number(rate.toFixed(3));
    this.say("");
    element("movie").showModal();
  }

  say(text, done = null) {
    element("movie-text").textContent = text;
    element("movie-progress").hidden = done === null;
    if (done !== null) element("movie-progress").value = done;
  }

  async make() {
    const start = element("movie-start").valueAsNumber;
    const stop = element("movie-stop").valueAsNumber + 1;
    if (!(start < stop)) return this.say("The last position must not be before the first.");
    if (stop - start > this.most) return this.say(`At most ${count(this.most)} frames; longer ones are made by imgstore-zarr convert.`);
    this.running = true;
    element("movie-go").disabled = true;
    element("movie-close").textContent = "Stop";
    try {
      let state = await order(`recordings/${this.pane.number}/movie`, { start, stop, rate: element("movie-rate").valueAsNumber, ...this.pane.look });
      while (this.running && !state.finished && !state.trouble) {
        this.say(`${count(state.done)} of ${count(state.total)} frames`, state.done / state.total);
        await pause(200);
        state = await ask("movie");
      }
      if (state.trouble) this.say(state.trouble);
      else if (this.running) {
        download("movie/file");
        this.say(`Saved ${state.name}.`);
      }
    } catch (error) {
      this.say(error.message);
    }
    this.running = false;
    element("movie-go").disabled = false;
    element("movie-close").textContent = "Close";
    return undefined;
  }

  async close() {
    if (this.running) {
      this.running = false;
      await order("movie/stop").catch(() => null);
      this.say("Stopped.");
    } else {
      element("movie").close();
    }
  }
}
