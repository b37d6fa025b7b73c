// The bar: buttons, the speed, and where to go.

import { ask } from "./api.js";

export const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4, 8, 16];

const element = (id) => document.getElementById(id);

/** Makes the buttons do what they say. */
export function bar(viewer) {
  const onClick = (id, act) => {
    element(id).addEventListener("click", (event) => {
      act();
      // After a click of the mouse the keys belong to the page again.
      if (event.detail > 0) element(id).blur();
    });
  };
  onClick("first", () => viewer.step(-Infinity));
  onClick("back", () => viewer.step(-1));
  onClick("play", () => viewer.toggle());
  onClick("forward", () => viewer.step(1));
  onClick("last", () => viewer.step(Infinity));
  onClick("loop", () => viewer.toggleLoop());
  onClick("panel-button", () => viewer.togglePanel());
  onClick("png-button", () => viewer.savePng());
  onClick("movie-button", () => viewer.openMovie());
  onClick("help-button", () => element("help").showModal());
  onClick("quit-button", () => viewer.quit());
  const speed = element("speed");
  speed.append(
    ...SPEEDS.map((factor) => {
      const option = document.createElement("option");
      option.value = factor;
      option.textContent = `${factor}×`;
      option.selected = factor === 1;
      return option;
    }),
  );
  speed.addEventListener("change", () => viewer.setSpeed(Number(speed.value)));
  element("jump").addEventListener("submit", (event) => {
    event.preventDefault();
    jump(viewer, element("jump-kind").value, element("jump-text").value.trim());
  });
  document.addEventListener("trouble", ({ detail }) => viewer.say(detail.message));
}

async function jump(viewer, kind, given) {
  const integer = /^-?\d+$/.test(given);
  let parameters;
  if (kind !== "time") {
    if (!integer) return viewer.say(`${kind === "number" ? "A frame number" : "A position"} is an integer.`);
    parameters = { [kind]: given };
  } else if (/^\+\d+(\.\d+)?$/.test(given)) {
    parameters = { time: (viewer.master.facts.first?.time ?? 0) + Number(given) };
  } else if (/^-?\d+(\.\d+)?$/.test(given)) {
    parameters = { time: given };
  } else {
    parameters = { local: given };
  }
  let found;
  try {
    found = await ask("recordings/0/find", parameters);
  } catch (error) {
    return viewer.say(error.message);
  }
  if (!found.frame) {
    viewer.say(found.nearest ? `There is no frame ${given}; the nearest is ${found.nearest.number}.` : "There is no such frame.");
    return undefined;
  }
  viewer.seek({ position: found.frame.position });
  element("jump-text").blur();
  return undefined;
}
