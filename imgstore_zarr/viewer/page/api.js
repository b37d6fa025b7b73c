// Asks the server. Addresses are relative, so that the token goes along by itself.

const root = new URL("./", document.baseURI);

function address(path, parameters = {}) {
  const url = new URL(path, root);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  return url;
}

const running = new Set();
let ended = false;

/** Asks, unless the viewer has ended: then there is never an answer. */
function fetched(url, options) {
  if (ended) return new Promise(() => {});
  const request = fetch(url, options);
  running.add(request);
  const forget = () => running.delete(request);
  request.then(forget, forget);
  return request;
}

/** Asks nothing more, and waits a moment for what was asked. */
export async function rest() {
  ended = true;
  const moment = new Promise((resolve) => setTimeout(resolve, 1000));
  await Promise.race([Promise.allSettled(running), moment]);
}

/** Ends the server. */
export async function quit() {
  await rest();
  await fetch(address("quit"), { method: "POST" }).catch(() => null);
}

async function checked(response) {
  if (response.ok) return response;
  throw new Error(await response.text());
}

/** A JSON answer; null where newer requests have overtaken this one. */
export async function ask(path, parameters) {
  const response = await checked(await fetched(address(path, parameters)));
  return response.status === 204 ? null : response.json();
}

/** A JSON answer to what changes something. */
export async function order(path, parameters) {
  return (await checked(await fetched(address(path, parameters), { method: "POST" }))).json();
}

/**
 * A frame: {bitmap, frame}; {damaged} where it cannot be read; null where newer requests have
 * overtaken this one.
 */
export async function askFrame(recording, parameters) {
  const response = await checked(await fetched(address(`recordings/${recording}/frame`, parameters)));
  if (response.status === 204) return null;
  if (response.headers.get("content-type").startsWith("application/json")) {
    const { damaged } = await response.json();
    return { damaged, frame: damaged.moment };
  }
  const frame = JSON.parse(response.headers.get("x-frame"));
  return { bitmap: await createImageBitmap(await response.blob()), frame };
}

/** Saves what an address answers; returns what is wrong where that is no file. */
export async function save(path, parameters) {
  const response = await checked(await fetched(address(path, parameters)));
  if (response.status === 204) return "Other frames came first; save it again.";
  if (response.headers.get("content-type").startsWith("application/json")) {
    const said = await response.json();
    return said.trouble ?? said.damaged?.message ?? "this could not be saved";
  }
  const name = /filename="([^"]+)"/.exec(response.headers.get("content-disposition"))[1];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  return null;
}

/** Lets the browser save a file that may be too large for the memory of a page. */
export function download(path) {
  const link = document.createElement("a");
  link.href = address(path);
  link.download = "";
  link.click();
}
