// Images: zoomed and moved by the pointer, and the pixel that is pointed at.

import { Pixel } from "./pixel.js";

export class Images {
  constructor(viewer) {
    this.viewer = viewer;
    this.pixel = new Pixel();
    this.listen();
  }

  listen() {
    for (const pane of this.viewer.panes) {
      const { canvas } = pane;
      let last = null;
      canvas.addEventListener("focus", () => this.viewer.active !== pane && this.viewer.activate(pane));
      canvas.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        canvas.setPointerCapture(event.pointerId);
        last = { x: event.clientX, y: event.clientY };
        if (this.viewer.active !== pane) this.viewer.activate(pane);
      });
      canvas.addEventListener("pointermove", (event) => {
        if (last && event.buttons & 1) {
          canvas.classList.add("dragging");
          pane.panBy(event.clientX - last.x, event.clientY - last.y);
          last = { x: event.clientX, y: event.clientY };
        }
        if (!pane.probe && !this.viewer.player.playing) {
          this.pixel.point(pane, pane.pixelAt(event.clientX, event.clientY));
        }
      });
      for (const kind of ["pointerup", "pointercancel"]) {
        canvas.addEventListener(kind, () => {
          last = null;
          canvas.classList.remove("dragging");
        });
      }
      canvas.addEventListener(
        "wheel",
        (event) => {
          event.preventDefault();
          pane.zoomBy(Math.exp(-event.deltaY * 0.0022), event.clientX, event.clientY);
        },
        { passive: false },
      );
      canvas.addEventListener("dblclick", () => pane.fit());
    }
  }

  toggleProbe() {
    const pane = this.viewer.active;
    const { width, height } = pane.facts;
    const middle = { x: Math.min(Math.floor(pane.view.x), width - 1), y: Math.min(Math.floor(pane.view.y), height - 1) };
    pane.probe = pane.probe ? null : middle;
    if (pane.probe) this.pixel.point(pane, pane.probe);
    pane.draw();
  }

  moveProbe(dx, dy) {
    const pane = this.viewer.active;
    if (!pane.probe) this.toggleProbe();
    const at = (value, size) => Math.min(Math.max(value, 0), size - 1);
    pane.probe = { x: at(pane.probe.x + dx, pane.facts.width), y: at(pane.probe.y + dy, pane.facts.height) };
    this.pixel.point(pane, pane.probe);
    pane.draw();
  }
}
