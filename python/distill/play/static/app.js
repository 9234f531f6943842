// The page of `distill play`: the list of runs, or one of them as an instrument.

import { requestJson } from "./api.js";
import { Instrument } from "./instrument.js";
import { complain } from "./notices.js";
import { showRuns } from "./runs.js";

const chosen = () => new URLSearchParams(location.hash.slice(1)).get("run");

/** Which run is open is in the address, so that loading it again keeps it. */
async function begin() {
  const { single, runs } = await requestJson("runs");
  const run = chosen() ?? (single ? runs[0]?.name : null);
  document.getElementById("to-runs").hidden = single || !run;
  if (run) await new Instrument(run).open();
  else await showRuns();
}

// Another run begins with a page that holds nothing of the last one.
const shown = chosen();
addEventListener("hashchange", () => chosen() !== shown && location.reload());

try {
  await begin();
} catch (error) {
  complain(error);
}
