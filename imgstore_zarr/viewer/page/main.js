// The page begins.

import { ask } from "./api.js";
import { Viewer } from "./viewer.js";

const viewer = new Viewer(await ask("recordings"));
await viewer.start();
