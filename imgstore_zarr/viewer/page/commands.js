// Commands: what each key does; the help is made of it.

const MOVE = 60;

const element = (id) => document.getElementById(id);

export function commands(viewer) {
  const zoom = (factor) => viewer.active.zoomBy(factor);
  const probe = (name, dx, dy) => [
    { keys: [`Alt+${name}`], act: () => viewer.images.moveProbe(dx, dy) },
    { keys: [`Alt+Shift+${name}`], act: () => viewer.images.moveProbe(10 * dx, 10 * dy) },
  ];
  return [
    { keys: [" "], says: "Play, pause", act: () => viewer.toggle() },
    { keys: ["ArrowLeft"], says: "One frame back, forward", shown: ["ArrowLeft", "ArrowRight"], act: () => viewer.step(-1) },
    { keys: ["ArrowRight"], act: () => viewer.step(1) },
    { keys: ["Shift+ArrowLeft"], says: "Ten frames", shown: ["Shift+ArrowLeft", "Shift+ArrowRight"], act: () => viewer.step(-10) },
    { keys: ["Shift+ArrowRight"], act: () => viewer.step(10) },
    { keys: ["Home"], says: "First, last frame", shown: ["Home", "End"], act: () => viewer.step(-Infinity) },
    { keys: ["End"], act: () => viewer.step(Infinity) },
    { keys: ["ArrowUp"], says: "Faster, slower", shown: ["ArrowUp", "ArrowDown"], act: () => viewer.faster(1) },
    { keys: ["ArrowDown"], act: () => viewer.faster(-1) },
    { keys: ["l"], says: "Loop", act: () => viewer.toggleLoop() },
    { keys: ["i"], says: "Mark where a range begins, ends", shown: ["i", "o"], act: () => viewer.mark("from") },
    { keys: ["o"], act: () => viewer.mark("to") },
    { keys: ["g"], says: "Go to a frame", act: () => element("jump-text").select() },
    { keys: ["n"], says: "Next, previous gap or damage", shown: ["n", "b"], act: () => viewer.goToMark(1) },
    { keys: ["b"], act: () => viewer.goToMark(-1) },
    { keys: ["z"], says: "Timeline: closer, wider", shown: ["z", "x"], act: () => viewer.timeline.zoom(2) },
    { keys: ["x"], act: () => viewer.timeline.zoom(0.5) },
    { keys: ["+", "="], says: "Image: larger, smaller", shown: ["+", "-"], act: () => zoom(1.5) },
    { keys: ["-"], act: () => zoom(1 / 1.5) },
    { keys: ["f", "0"], says: "Image: fit, one to one", shown: ["f", "1"], act: () => viewer.active.fit() },
    { keys: ["1"], act: () => viewer.active.oneToOne() },
    { keys: ["w"], says: "Move the image", shown: ["w", "a", "s", "d"], act: () => viewer.active.panBy(0, MOVE) },
    { keys: ["a"], act: () => viewer.active.panBy(MOVE, 0) },
    { keys: ["s"], act: () => viewer.active.panBy(0, -MOVE) },
    { keys: ["d"], act: () => viewer.active.panBy(-MOVE, 0) },
    { keys: ["u"], says: "Levels from this frame", act: () => viewer.contrast.auto() },
    { keys: ["m"], says: "Next colours", act: () => viewer.contrast.nextMap() },
    { keys: ["p"], says: "A pixel's value; move it", shown: ["p", "Alt+←↑→↓"], act: () => viewer.images.toggleProbe() },
    ...probe("ArrowLeft", -1, 0),
    ...probe("ArrowRight", 1, 0),
    ...probe("ArrowUp", 0, -1),
    ...probe("ArrowDown", 0, 1),
    { keys: ["r"], says: "Next recording", act: () => viewer.nextPane() },
    { keys: ["c"], says: "Contrast and facts", act: () => viewer.togglePanel() },
    { keys: ["k"], says: "Save this frame as PNG", act: () => viewer.savePng() },
    { keys: ["e"], says: "Save a movie", act: () => viewer.openMovie() },
    { keys: ["?"], says: "These keys", act: () => element("help").showModal() },
    { keys: ["q", "Escape"], says: "End the viewer", act: () => viewer.quit() },
  ];
}
