// The shelf: sounds that are kept with the run, with the settings that made them.

import { request, requestJson, runPath } from "./api.js";
import { attempt, say } from "./notices.js";

const byId = (id) => document.getElementById(id);

function button(text, label, onClick) {
  const made = document.createElement("button");
  Object.assign(made, { type: "button", className: "quiet", textContent: text });
  made.setAttribute("aria-label", label);
  made.addEventListener("click", onClick);
  return made;
}

export class Shelf {
  /**
   * @param {{current: () => {settings: object, name: string} | null, onLoad: (settings: object) => void,
   *   onHear: (settings: object) => void}} handlers
   */
  constructor(run, handlers) {
    this.path = (rest = "") => runPath(run, `/shelf${rest}`);
    this.handlers = handlers;
    this.sounds = [];
    this.keeping = null;
    byId("keep").addEventListener("click", () => this.keep());
    byId("keep-name").addEventListener("keydown", (event) => event.key === "Enter" && this.keep());
  }

  async load() {
    ({ sounds: this.sounds } = await requestJson(this.path()));
    this.show();
  }

  async keep() {
    const current = this.handlers.current();
    if (!current) {
      say("There is no sound to keep yet.");
      return;
    }
    const name = byId("keep-name").value.trim() || current.name;
    const json = { name, settings: current.settings };
    const key = JSON.stringify(json);
    if (key === this.keeping || this.sounds.some((entry) => entry.key === key)) {
      say(`${name} is on the shelf already.`);
      return;
    }
    this.keeping = key;
    await attempt(async () => {
      const entry = await requestJson(this.path(), { method: "POST", json });
      this.sounds.push({ ...entry, key });
      byId("keep-name").value = "";
      this.show();
      say(`Kept: ${name}`);
    }, "shelf");
    this.keeping = null;
  }

  async rename(entry, name) {
    await attempt(async () => {
      await request(this.path(`/${encodeURIComponent(entry.id)}`), { method: "PUT", json: { name } });
      Object.assign(entry, { name, key: null });
    }, "shelf");
    const hadFocus = document.activeElement.dataset.id === entry.id;
    this.show();
    if (hadFocus) byId("shelf").querySelector(`[data-id="${CSS.escape(entry.id)}"]`)?.focus();
  }

  async remove(entry) {
    await attempt(async () => {
      try {
        await request(this.path(`/${encodeURIComponent(entry.id)}`), { method: "DELETE" });
      } catch (error) {
        // Another page may have deleted it.
        if (error.status !== 404) throw error;
      }
      this.sounds = this.sounds.filter((other) => other !== entry);
      this.show();
      say(`Deleted: ${entry.name}`);
      byId("keep").focus();
    }, "shelf");
  }

  /** What would be the name of a sound that is kept now. */
  suggest(/** @type {string} */ name) {
    byId("keep-name").placeholder = name;
  }

  show() {
    // The newest first.
    byId("shelf").replaceChildren(...this.sounds.toReversed().map((entry) => this.item(entry)));
    byId("shelf-empty").hidden = this.sounds.length > 0;
  }

  item(entry) {
    const item = document.createElement("li");
    const load = button(entry.name, `Load ${entry.name}`, () => this.handlers.onLoad(entry.settings));
    load.className = "load";
    load.title = entry.command ?? "";
    const hear = button("▸", `Hear ${entry.name}`, () => this.handlers.onHear(entry.settings));
    const rename = button("✎", `Rename ${entry.name}`, () => this.type(entry, load, rename));
    const remove = button("×", `Delete ${entry.name}`, () => this.remove(entry));
    rename.dataset.id = entry.id;
    for (const small of [hear, rename, remove]) small.classList.add("icon");
    item.append(hear, load, rename, remove);
    return item;
  }

  /** Let the name be typed, in place of the button that shows it. */
  type(entry, load, rename) {
    if (!load.isConnected) return;
    const field = document.createElement("input");
    Object.assign(field, { type: "text", value: entry.name, maxLength: 200 });
    field.setAttribute("aria-label", `New name of ${entry.name}`);
    load.replaceWith(field);
    field.focus();
    field.select();
    let isDone = false;
    const close = (isKept, isFocused) => {
      if (isDone) return;
      isDone = true;
      const name = field.value.trim();
      field.replaceWith(load);
      if (isFocused) rename.focus();
      if (isKept && name && name !== entry.name) this.rename(entry, name);
    };
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault();
      close(event.key === "Enter", true);
    });
    field.addEventListener("blur", () => close(true, false));
  }
}
