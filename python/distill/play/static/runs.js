// The list of runs.

import { address, requestJson, runPath } from "./api.js";
import { attempt } from "./notices.js";

const byId = (id) => document.getElementById(id);
const AGAIN_MS = 5000;

function element(tag, className, text) {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

function figures(run) {
  const number = (value, digits = 3) => (value == null ? null : value.toFixed(digits).replace("-", "−"));
  const list = document.createElement("dl");
  const entries = {
    Epochs: number(run.epochs, 0),
    "Validation loss": number(run.val_loss, 4),
    "R² of magnitude": number(run.magnitude_r2),
    "R² of frequency": number(run.if_r2),
  };
  for (const [name, value] of Object.entries(entries)) {
    if (value === null) continue;
    const pair = document.createElement("div");
    pair.append(element("dt", "", name), element("dd", "", value));
    list.append(pair);
  }
  return list;
}

function chips(run) {
  const found = [];
  if (run.state === "training") found.push("training");
  if (!run.playable && !run.error) found.push("no weights yet");
  if (run.playable && run.analysis !== "ready") found.push("not analysed");
  return found.map((text) => element("span", "chip", text));
}

function card(run) {
  const item = element("li", "card", "");
  const picture = element(run.picture ? "img" : "div", "picture", "");
  if (run.picture) {
    Object.assign(picture, { src: address(runPath(run.name, "/picture")), alt: "", loading: "lazy" });
  }
  const link = element("a", "", run.name);
  link.href = `#run=${encodeURIComponent(run.name)}`;
  const heading = element("h2", "", "");
  heading.append(run.error ? run.name : link);
  const date = run.date ? new Date(run.date) : null;
  const when = element("p", "muted", "");
  const style = { dateStyle: "medium", timeStyle: "short" };
  if (date) when.append(Object.assign(element("time", "", date.toLocaleString([], style)), { dateTime: run.date }));
  when.append(...chips(run));
  item.append(picture, heading, when, run.error ? element("p", "error", run.error) : figures(run));
  return item;
}

/** Show the list, and keep it fresh. */
export async function showRuns() {
  document.title = "distill play";
  byId("title").textContent = "Runs";
  byId("runs").hidden = false;
  let last = "";
  const refresh = async () => {
    const reply = document.hidden ? null : await attempt(() => requestJson("runs"), "server");
    const text = JSON.stringify(reply?.runs);
    // Drawn only if something is new: a link keeps its focus.
    if (reply && text !== last) {
      last = text;
      byId("run-list").replaceChildren(...reply.runs.map(card));
      byId("facts").textContent = reply.runs.length ? "" : "There is no run in this folder yet.";
    }
    setTimeout(refresh, AGAIN_MS);
  };
  await refresh();
}
