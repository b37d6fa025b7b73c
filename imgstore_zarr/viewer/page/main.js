// The page begins.

import { ask } from "./api.js";
import { Viewer } from "./viewer.js";

try {
  await new Viewer(await ask("recordings")).start();
} catch (error) {
  const notice = document.getElementById("notice");
  notice.textContent = `The page could not begin: ${error.message}`;
  notice.hidden = false;
  throw error;
}
