// Viewer: recordings side by side, locked in time, above their timeline.

import { ask, quit, rest, save } from "./api.js";
import { SPEEDS, bar } from "./bar.js";
import { commands } from "./commands.js";
import { Contrast } from "./contrast.js";
import { Curves } from "./curves.js";
import { Images } from "./images.js";
import { help, listen } from "./keys.js";
import { MovieDialog } from "./movie.js";
import { Pane } from "./pane.js";
import { Player } from "./player.js";
import * as text from "./text.js";
import { Timeline } from "./timeline.js";

const FOLLOWING = 1500;
const NARROW = 820;
const MOST_PROBLEMS = 3;
const PLAY = "M4 2.5v11L13.5 8z";
const PAUSE = "M4 3h3v10H4zM9 3h3v10H9z";

const element = (id) => document.getElementById(id);

export class Viewer {
  constructor({ recordings, color_maps: maps, most_movie_frames: most, begin }) {
    this.begin = begin;
    this.panes = recordings.map((facts, i) => new Pane(i, facts, (pane, answer) => this.shown(pane, answer)));
    this.active = this.panes[0];
    element("stage").append(...this.panes.map((pane) => pane.element));
    element("stage").style.setProperty("--columns", Math.ceil(Math.sqrt(recordings.length)));
    this.master.label.hidden = this.panes.length === 1;
    this.shareViews();
    this.player = new Player({
      fetch: (position, stride) => this.fetchAll(position, stride),
      show: (answers) => answers.forEach((answer, i) => answer && this.panes[i].show(answer)),
      bounds: () => this.range(),
      changed: () => this.playingChanged(),
      failed: (error) => this.say(error.message),
    });
    this.player.rate = begin.fps ?? this.master.facts.rate ?? 25;
    this.timeline = new Timeline(element("timeline"), recordings, {
      seek: (value, preview) => this.seekOnAxis(value, preview),
      moved: () => {
        this.curves.load();
        this.listProblems();
      },
    });
    this.curves = new Curves(element("channels"), element("curves"), this.timeline, {
      seek: (value, preview) => this.seekOnAxis(value, preview),
    });
    this.contrast = new Contrast(maps, (pane) => this.lookChanged(pane));
    this.images = new Images(this);
    this.movie = new MovieDialog(most);
    this.marks = { from: null, to: null };
    bar(this);
    if (window.innerWidth <= NARROW) this.togglePanel();
    const table = commands(this);
    listen(table);
    element("keys").replaceChildren(...help(table));
    this.describe();
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  get master() {
    return this.panes[0];
  }

  get position() {
    return this.master.current?.frame.position ?? 0;
  }

  async start() {
    this.timeline.fit();
    this.activate(this.master);
    if (!this.master.facts.frames) {
      this.notice(`${this.master.facts.name} has no frames yet.`);
    } else {
      await this.begun();
    }
    if (this.begin.playing) this.player.start(-1);
    setTimeout(() => this.follow(), FOLLOWING);
    await this.curves.find();
  }

  /** Shows the first frame, with levels that it can be seen with. */
  async begun() {
    await Promise.all(
      this.panes
        .filter((pane) => pane.facts.frames && Contrast.needsLevels(pane.facts))
        .map((pane) => this.contrast.auto(pane)),
    );
    this.seek({ position: 0 });
  }

  /** Panes of images of the same size are zoomed and moved together. */
  shareViews() {
    const views = new Map();
    for (const pane of this.panes) {
      const key = `${pane.facts.height}x${pane.facts.width}`;
      if (views.has(key)) pane.view = views.get(key);
      else views.set(key, pane.view);
    }
    element("stage").addEventListener("viewed", ({ detail: moved }) => {
      for (const pane of this.panes) {
        if (pane !== moved && pane.view === moved.view) {
          pane.draw();
          pane.sharpen();
        }
      }
    });
  }

  // Which frames belong together.

  /** What to ask a recording for, while the first one shows a frame. */
  matching(pane, frame) {
    const [mine, first] = [pane.facts, this.master.facts];
    if (!mine.frames) return null;
    const overlap =
      mine.axis === "time" && first.axis === "time" && frame.time !== null
      && mine.first.time <= first.last.time && mine.last.time >= first.first.time;
    if (overlap) return { time: frame.time };
    return { position: Math.min(frame.position, mine.frames - 1) };
  }

  seek(target, preview = false) {
    if (target.position !== this.aim) this.aim = undefined;
    this.player.stop();
    this.master.seek(target, preview);
  }

  seekOnAxis(value, preview) {
    if (!this.master.facts.frames) return;
    this.timeline.setCursor(value);
    this.seek(this.master.facts.axis === "time" ? { time: value } : { position: value }, preview);
  }

  step(by) {
    // Of keys that come faster than frames, each counts.
    const from = this.master.busy && this.aim !== undefined ? this.aim : this.position;
    this.aim = this.within(from + by);
    this.seek({ position: this.aim });
  }

  within(position) {
    return Math.min(Math.max(position, 0), Math.max(this.master.facts.frames - 1, 0));
  }

  /** The positions that are marked, or all, as a half-open range. */
  range() {
    const from = this.marks.from ?? 0;
    const to = this.marks.to ?? this.master.facts.frames - 1;
    return { start: Math.min(from, to), stop: Math.max(from, to) + 1 };
  }

  fetchAll(position, stride) {
    const first = this.master.fetch({ position }, { ahead: stride });
    const others = this.panes.slice(1).map(async (pane) => {
      const answer = await first;
      const target = answer && this.matching(pane, answer.frame);
      return target ? pane.fetch(target, { ahead: stride }) : null;
    });
    return Promise.all([first, ...others]);
  }

  shown(pane, answer) {
    if (pane === this.master) {
      const { frame } = answer;
      if (!this.player.playing) {
        for (const other of this.panes.slice(1)) {
          const target = this.matching(other, frame);
          if (target) other.seek(target, answer.preview ?? false);
        }
      }
      this.readout(frame);
      if (!this.timeline.dragging) this.timeline.setCursor(this.onAxis(frame));
      this.curves.follow();
    }
    for (const other of this.panes.slice(1)) other.compare(this.master.current?.frame.time ?? null);
    // Both need all pixels of the frame, which would slow down whoever plays.
    if (pane === this.active && !this.player.playing) {
      if (!answer.preview) this.contrast.measure();
      this.images.pixel.refresh(pane);
    }
    // The frames before this one could not be read, or were none.
    if (!answer.damaged && Contrast.lacksLevels(pane)) this.contrast.auto(pane);
  }

  onAxis(frame) {
    return this.master.facts.axis === "time" ? frame.time : frame.position;
  }

  readout(frame) {
    const { facts } = this.master;
    element("number").textContent = `#${frame.number}`;
    element("local").textContent = frame.local ?? (frame.time === null ? "no time" : `${text.value(frame.time, 10)} s`);
    const since = frame.time !== null && facts.first?.time !== null ? ` · ${text.seconds(frame.time - facts.first.time)} from the start` : "";
    element("place").textContent = `${text.count(frame.position)} of ${text.count(facts.frames)}${since}`;
    this.rates();
    const slider = element("timeline");
    slider.setAttribute("aria-valuemax", Math.max(facts.frames - 1, 0));
    slider.setAttribute("aria-valuenow", frame.position);
    slider.setAttribute("aria-valuetext", `frame ${frame.number}, ${element("local").textContent}`);
  }

  rates() {
    const { measured, wanted } = this.player;
    const usual = wanted ? `${text.value(wanted, 4)} frames/s` : "all frames";
    element("speed-text").textContent = measured ? `${measured.toFixed(1)} of ${usual}` : usual;
  }

  toggle() {
    if (this.player.playing) {
      this.player.stop();
      for (const pane of this.panes) pane.sharpen();
    } else if (this.master.facts.frames) {
      this.player.start(this.position);
    }
  }

  playingChanged() {
    const { playing } = this.player;
    for (const pane of this.panes) pane.setPlaying(playing);
    element("play").setAttribute("aria-pressed", playing);
    element("play").setAttribute("aria-label", playing ? "Pause" : "Play");
    element("play-icon").setAttribute("d", playing ? PAUSE : PLAY);
    if (!playing && this.active.current && !this.active.current.damaged) {
      this.contrast.measure();
      this.images.pixel.refresh(this.active);
    }
    this.rates();
  }

  toggleLoop() {
    this.player.loop = !this.player.loop;
    element("loop").setAttribute("aria-pressed", this.player.loop);
  }

  setSpeed(factor) {
    this.player.speed = factor;
    element("speed").value = factor;
    this.rates();
  }

  faster(by) {
    const at = SPEEDS.indexOf(this.player.speed) + by;
    if (SPEEDS[at]) this.setSpeed(SPEEDS[at]);
  }

  mark(end) {
    if (!this.master.current) return;
    this.marks[end] = this.marks[end] === this.position ? null : this.position;
    this.timeline.range[end] = this.marks[end] === null ? null : this.onAxis(this.master.current.frame);
    this.timeline.draw();
  }

  async goToMark(direction) {
    // Whoever is quicker than the timeline waits for it.
    if (this.master.facts.frames && !this.timeline.lanes[0]) await this.timeline.loadNow();
    const value = this.timeline.nextMark(direction);
    if (value === null) this.say("No gap or damage on this side.");
    else this.seekOnAxis(value, false);
  }

  // The panel.

  activate(pane) {
    this.active = pane;
    for (const other of this.panes) other.element.classList.toggle("active", other === pane && this.panes.length > 1);
    this.contrast.activate(pane);
    this.listFacts(pane.facts);
    this.listProblems();
  }

  /** Lists what was found by looking into the files; frames that cannot be read say so themselves. */
  listProblems() {
    const known = this.timeline.lanes[this.active.number]?.problems ?? [];
    const problems = known.filter(({ kind }) => kind !== "frame-damaged");
    element("problems-section").hidden = !problems.length;
    element("problems").replaceChildren(
      ...problems.slice(0, MOST_PROBLEMS).map(({ message }) => {
        const line = document.createElement("li");
        line.textContent = message;
        return line;
      }),
    );
    element("problems-more").textContent = problems.length > MOST_PROBLEMS ? `${MOST_PROBLEMS} of ${text.count(problems.length)}; imgstore-zarr report lists all` : "";
  }

  listFacts(facts) {
    const rows = {
      name: facts.name,
      format: facts.format,
      image: `${facts.width} × ${facts.height}${facts.channels > 1 ? ` × ${facts.channels}` : ""} ${facts.dtype}`,
      frames: text.count(facts.frames),
      chunks: text.count(facts.chunks),
      rate: facts.rate ? `${text.value(facts.rate, 5)} frames/s` : "unknown",
      duration: facts.first?.time != null && facts.last?.time != null ? text.seconds(facts.last.time - facts.first.time) : "unknown",
      zone: facts.zone,
      pixels: facts.lossless ? "exact" : "lossy",
    };
    element("facts").replaceChildren(
      ...Object.entries(rows).flatMap(([name, said]) => {
        const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
        dt.textContent = name;
        dd.textContent = said;
        return [dt, dd];
      }),
    );
  }

  togglePanel() {
    const panel = element("panel");
    panel.hidden = !panel.hidden;
    element("panel-button").setAttribute("aria-pressed", !panel.hidden);
    if (!panel.hidden) this.contrast.draw();
  }

  lookChanged(pane) {
    if (pane === this.master) {
      this.timeline.peek.look = pane.look;
    }
    pane.refresh();
  }

  async savePng() {
    const { active } = this;
    const wrong = await save(`recordings/${active.number}/original`, { position: active.current?.frame.position ?? 0 }).catch((error) => error.message);
    this.say(wrong ?? "The frame was saved.");
  }

  openMovie() {
    const first = this.range();
    const whole = this.marks.from === null && this.marks.to === null;
    const range = whole ? { start: this.position, stop: this.position + Math.ceil(10 * (this.master.facts.rate ?? 25)) } : first;
    if (this.active.facts.frames) this.movie.open(this.active, range, this.active.facts.rate ?? 25);
  }

  nextPane() {
    this.activate(this.panes[(this.active.number + 1) % this.panes.length]);
  }

  // What happens meanwhile.

  describe() {
    const { facts } = this.master;
    const names = this.panes.map((pane) => pane.facts.name);
    document.title = `${names.join(", ")} – imgstore-zarr`;
    element("title").textContent = names.join("  ·  ");
    const duration = facts.first?.time != null && facts.last?.time != null ? `, ${text.seconds(facts.last.time - facts.first.time)}` : "";
    element("subtitle").textContent = `${facts.format} · ${facts.width} × ${facts.height} ${facts.dtype} · ${text.plural(facts.frames, "frame")}${duration}`;
    element("readout").hidden = !this.begin.status_bar;
    const place = element("timeline");
    place.setAttribute("aria-valuemax", Math.max(facts.frames - 1, 0));
  }

  /** Sees whether recordings have grown or broken, from time to time. */
  async follow() {
    if (this.ended) return;
    try {
      const { recordings } = await ask("changes");
      const before = this.panes.map(({ facts }) => `${facts.frames} ${facts.generation}`);
      const changed = recordings.some((now, i) => `${now.frames} ${now.generation}` !== before[i]);
      const told = JSON.stringify(recordings.map((now) => [now.inspected, now.damaged]));
      if (changed) await this.refresh();
      else if (told !== this.told) this.timeline.load();
      this.told = told;
      const wrong = recordings.map((now, i) => now.trouble && `${this.panes[i].facts.name}: ${now.trouble}`).filter(Boolean);
      if (wrong.length) this.notice(`${wrong.join("; ")} – what was there before can still be looked at.`);
      else if (this.master.facts.frames) this.notice(null);
    } catch {
      // It may be busy, or it has ended; a second silence tells.
      this.silent = (this.silent ?? 0) + 1;
      if (this.silent > 1) return this.end();
      setTimeout(() => this.follow(), FOLLOWING);
      return undefined;
    }
    this.silent = 0;
    setTimeout(() => this.follow(), FOLLOWING);
    return undefined;
  }

  async refresh() {
    const { recordings } = await ask("recordings");
    const empty = !this.master.facts.frames;
    const replaced = this.panes.filter((pane, i) => pane.facts.generation !== recordings[i].generation);
    recordings.forEach((facts, i) => Object.assign(this.panes[i].facts, facts));
    const whole = this.timeline.whole;
    const { start, stop } = this.timeline;
    this.timeline.fit();
    if (!whole) this.timeline.show(start, stop);
    this.describe();
    this.listFacts(this.active.facts);
    if (empty && this.master.facts.frames) {
      this.notice(null);
      await this.begun();
    } else if (this.master.current) {
      this.readout(this.master.current.frame);
    }
    // What is on the screen is of a recording that is not there any more.
    for (const pane of replaced) pane.again();
    if (!this.curves.channels.length) this.curves.find();
    this.say(`${this.master.facts.name} has ${text.plural(this.master.facts.frames, "frame")} now.`);
  }

  redraw() {
    this.timeline.draw();
    this.curves.draw();
    this.contrast.draw();
  }

  notice(message) {
    element("notice").hidden = !message;
    element("notice").textContent = message ?? "";
  }

  /** Says something for a moment. */
  say(message) {
    element("status").textContent = message;
    element("status").classList.remove("hidden-visually");
    clearTimeout(this.saying);
    this.saying = setTimeout(() => element("status").classList.add("hidden-visually"), 4000);
  }

  async quit() {
    this.ended = true;
    this.player.stop();
    await quit();
    this.end();
  }

  end() {
    this.ended = true;
    this.player.stop();
    rest();
    element("ended").hidden = false;
  }
}
