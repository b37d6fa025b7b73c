// Keys: what the keyboard does, in one table, which is the help as well.

const HELD = ["Alt", "Shift"];
const SLIDING = /^(Arrow.*|Home|End)$/;

/** Does what is in the table for a key, unless it is meant for a field or a dialog. */
export function listen(table) {
  const known = new Map();
  for (const { keys, act } of table) for (const key of keys) known.set(key, act);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
    const { target } = event;
    if (target.matches("input:not([type=range]), select, textarea")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (target.matches("button") && [" ", "Enter"].includes(event.key)) return;
    const own = target.matches("input[type=range]") && SLIDING.test(event.key);
    if (own && !event.altKey) return;
    const name = event.key.length === 1 && event.key !== " " ? event.key.toLowerCase() : event.key;
    const held = event.key.length === 1 ? (event.altKey ? "Alt+" : "") : HELD.filter((key) => event[`${key.toLowerCase()}Key`]).map((key) => `${key}+`).join("");
    const act = known.get(held + name);
    if (!act) return;
    event.preventDefault();
    act(event);
  });
}

const NAMES = { " ": "Space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" };

function named(key) {
  return key
    .split(/(?<=.)\+(?=.)/)
    .map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part))
    .join(" ");
}

/** The rows of the help. */
export function help(table) {
  return table
    .filter(({ says }) => says)
    .map(({ keys, says, shown }) => {
      const row = document.createElement("div");
      const text = document.createElement("span");
      text.textContent = says;
      const list = document.createElement("span");
      for (const key of shown ?? keys) {
        const one = document.createElement("kbd");
        one.textContent = named(key);
        list.append(one, " ");
      }
      row.append(text, list);
      return row;
    });
}
