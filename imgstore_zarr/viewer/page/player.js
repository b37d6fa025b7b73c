// Player: shows one frame after the other, at a steady rate, with frames asked for ahead of time.

const AHEAD = 8;
const FASTEST = 60;
const LATE = 300;

const nextScreen = () => new Promise((resolve) => requestAnimationFrame(resolve));

export class Player {
  /**
   * `fetch(position, stride)` gives the answers of all panes; `show` draws them; `bounds()` says between
   * which positions to play, `changed` is called when it begins or ends, `failed` with what ended it.
   */
  constructor({ fetch, show, bounds, changed, failed }) {
    Object.assign(this, { fetch, show, bounds, changed, failed });
    this.playing = false;
    this.loop = false;
    this.rate = 25;
    this.speed = 1;
    this.run = 0;
    this.measured = null;
  }

  /** Frames per second that are wanted; 0 is all there can be. */
  get wanted() {
    return this.rate * this.speed;
  }

  start(position) {
    if (this.playing) return;
    this.playing = true;
    this.changed();
    this.play(position, ++this.run);
  }

  stop() {
    if (!this.playing) return;
    this.playing = false;
    this.run += 1;
    this.measured = null;
    this.changed();
  }

  following(position, stride) {
    const { start, stop } = this.bounds();
    const next = position + stride;
    if (next < stop) return next;
    return this.loop ? start : null;
  }

  async play(position, run) {
    const { start, stop } = this.bounds();
    let next = position + 1 >= stop || position < start ? start : position + 1;
    let waiting = [];
    let speed = this.wanted;
    let stride = 1;
    let due = performance.now();
    const shown = [];
    while (this.run === run) {
      if (this.wanted !== speed) {
        speed = this.wanted;
        due = performance.now();
      }
      stride = Math.max(1, Math.round(speed / FASTEST));
      while (waiting.length < AHEAD && next !== null) {
        const answers = this.fetch(next, stride);
        // What fails is seen when its turn comes, if it ever does.
        answers.catch(() => null);
        waiting.push(answers);
        next = this.following(next, stride);
      }
      if (!waiting.length) break;
      let answers;
      try {
        answers = await waiting.shift();
      } catch (error) {
        if (this.run === run) this.failed(error);
        break;
      }
      if (this.run !== run) return;
      while (performance.now() < due - 3) {
        await nextScreen();
        if (this.run !== run) return;
      }
      this.show(answers);
      const now = performance.now();
      shown.push(now);
      if (shown.length > 40) shown.shift();
      if (shown.length > 3) this.measured = ((shown.length - 1) * 1000) / (now - shown[0]);
      if (speed > 0) {
        due += (1000 * stride) / speed;
        if (now - due > LATE) due = now;
      } else {
        await nextScreen();
      }
    }
    if (this.run === run) this.stop();
  }
}
