// The sounds that one can start from: fields in which their names are typed, and files that are dropped on the page.

import { requestJson, runPath, upload } from "./api.js";
import { attempt, say } from "./notices.js";

const MOST_SHOWN = 100;
const LONGEST_S = 60;
const byId = (id) => document.getElementById(id);

export class Sounds {
  constructor(/** @type {string} */ run) {
    this.run = run;
    this.dataset = new Set();
    this.dropped = new Set();
    this.isPart = false;
  }

  async load() {
    const { dataset, dataset_of, dropped } = await requestJson(runPath(this.run, "/sounds"));
    this.dataset = new Set(dataset);
    this.dropped = new Set(dropped);
    this.isPart = dataset_of > dataset.length;
  }

  /** How a source is written in a field. */
  write(source) {
    if (!source) return "";
    const isUnclear = source.kind === "dropped" && this.dataset.has(source.name);
    const offset = source.offset ? ` @ ${Math.round(1000 * source.offset) / 1000} s` : "";
    return (isUnclear ? `dropped/${source.name}` : source.name) + offset;
  }

  /** The source that a text names, or null. */
  read(/** @type {string} */ text, isFinal = false) {
    const [, start, seconds] = /^(.*?) @ ([\d.]+) s$/.exec(text) ?? [null, null, null];
    const named = this.named(text, 0) ?? (start && this.named(start, Number(seconds)));
    if (named || !isFinal || !this.isPart || !text) return named || null;
    // Only a part of the names is known here; the server knows all.
    return { kind: "dataset", name: start ?? text, offset: Number(seconds ?? 0) };
  }

  named(name, offset) {
    if (this.dataset.has(name)) return { kind: "dataset", name, offset };
    const dropped = name.startsWith("dropped/") && !this.dropped.has(name) ? name.slice(8) : name;
    return this.dropped.has(dropped) ? { kind: "dropped", name: dropped, offset } : null;
  }

  /** The first names that hold a text: lists of 20 000 options are slow. */
  *matches(text) {
    const wanted = text.toLowerCase();
    let left = MOST_SHOWN;
    const dropped = [...this.dropped].map((name) => this.write({ kind: "dropped", name, offset: 0 }));
    for (const names of [dropped, this.dataset]) {
      for (const name of names) {
        if (!left) return;
        if (!name.toLowerCase().includes(wanted)) continue;
        left--;
        yield name;
      }
    }
  }

  /**
   * Let a sound be chosen in a text field.
   * @param {HTMLInputElement} field
   * @param {(source: object) => void} onChosen
   * @param {(text: string) => void} onUnknown
   */
  bind(field, onChosen, onUnknown) {
    const list = byId("sound-names");
    const suggest = (text) => list.replaceChildren(...[...this.matches(text)].map((name) => new Option(name, name)));
    const choose = (isFinal) => {
      const source = this.read(field.value.trim(), isFinal);
      field.removeAttribute("aria-invalid");
      if (source) onChosen(source);
      else if (isFinal && field.value.trim()) {
        field.setAttribute("aria-invalid", "true");
        onUnknown(field.value.trim());
      }
    };
    field.addEventListener("focus", () => {
      suggest("");
      field.select();
    });
    field.addEventListener("input", () => {
      suggest(field.value);
      choose(false);
    });
    field.addEventListener("change", () => choose(true));
    field.addEventListener("keydown", (event) => event.key === "Enter" && choose(true));
  }

  /** Take files that are dropped anywhere on the page, or chosen. */
  acceptFiles(onSource) {
    const send = (files) => files.length && this.upload(files, onSource);
    byId("file").addEventListener("change", (event) => {
      send(event.target.files);
      event.target.value = "";
    });
    const cover = byId("drop");
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      cover.hidden = false;
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) cover.hidden = true;
    });
    addEventListener("drop", (event) => {
      cover.hidden = true;
      if (!hasFiles(event)) return;
      event.preventDefault();
      send(event.dataTransfer.files);
    });
  }

  async upload([file, ...others], onSource) {
    const bar = byId("upload");
    bar.hidden = false;
    bar.value = 0;
    const path = runPath(this.run, "/sounds");
    const reply = await attempt(() => upload(path, file, (share) => (bar.value = share)), "upload");
    bar.hidden = true;
    if (!reply) return;
    this.dropped.add(reply.source.name);
    const first = others.length ? `The first of ${others.length + 1} files is used: ` : "Loaded: ";
    say(`${first}${file.name}${reply.duration > LONGEST_S ? `, of which one hears the first ${LONGEST_S} s` : ""}`);
    onSource(reply.source);
  }
}
