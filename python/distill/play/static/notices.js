// Messages: what happened, and what went wrong with a tip what to do.

const byId = (id) => document.getElementById(id);
let shown = null;
let dismissed = null;
let timer = 0;

/** Say something in the status region; it fades from view after some seconds. */
export function say(/** @type {string} */ text) {
  const status = byId("status");
  status.textContent = text;
  status.classList.add("fresh");
  clearTimeout(timer);
  timer = setTimeout(() => status.classList.remove("fresh"), 6000);
}

const STAGES = {
  decode: "Reading the files",
  effect: "Measuring the axes",
  encode: "Encoding",
  features: "Computing features",
  generate: "Making the sound",
  hash: "Looking for changes",
  lengths: "Reading the files",
  neighbours: "Comparing the sounds",
  scan: "Looking for changes",
};

/** What is being done, in words, and how far it is. */
export function inProgress({ stage, current, total }) {
  return `${STAGES[stage] ?? stage}${total ? `: ${Math.floor((100 * current) / total)} %` : " …"}`;
}

/** Show an error; `settle` takes it away when what it is about works again. */
export function complain(/** @type {Error & {tip?: string | null}} */ error, about = "page") {
  // The server is asked again and again: an error is not told twice, nor after it was dismissed.
  if (about === "server" && (error.message === dismissed || error.message === byId("notice-error").textContent)) return;
  shown = about;
  byId("notice-error").textContent = error.message;
  byId("notice-tip").textContent = error.tip ?? "";
  byId("notice").hidden = false;
}

/** Take away the error about something that works again. Returns whether there was one. */
export function settle(/** @type {string[]} */ ...about) {
  if (about.includes("server")) dismissed = null;
  const isShown = about.includes(shown);
  if (isShown) hide();
  return isShown;
}

function hide() {
  shown = null;
  byId("notice").hidden = true;
  byId("notice-error").textContent = "";
  byId("notice-tip").textContent = "";
}

/** Run an action; its error is shown. */
export async function attempt(action, about = "page") {
  try {
    const result = await action();
    settle(about);
    return result;
  } catch (error) {
    complain(error, about);
    return undefined;
  }
}

byId("notice-close").addEventListener("click", () => {
  dismissed = byId("notice-error").textContent;
  hide();
});
