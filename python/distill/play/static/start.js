// The panel "Start from": a random sound, a sound, or what lies between two, with seed and duration.

import { LARGEST_SEED, randomSeed } from "./form.js";
import { stepWithKeys } from "./keys.js";

const byId = (id) => document.getElementById(id);
const KINDS = ["sample", "around", "between"];
const RADIUS = 0.5;
const SHORTEST_S = 0.01;
const FIELDS = ["seed", "duration", "dataset-sound", "sound-a", "sound-b"];

export class Start {
  /**
   * @param {import("./history.js").History<import("./form.js").Form>} history
   * @param {import("./sounds.js").Sounds} sounds
   */
  constructor(history, sounds) {
    this.history = history;
    this.sounds = sounds;
    this.chunkS = null;
    /** @type {Set<HTMLElement>} fields in which somebody types */
    this.typedIn = new Set();
    for (const id of FIELDS) this.follow(byId(id));
    this.listen();
    this.show(history.present);
  }

  /** Know whether somebody types in a field. */
  follow(field) {
    field.addEventListener("input", () => this.typedIn.add(field));
    const end = () => this.typedIn.delete(field);
    for (const type of ["change", "blur"]) field.addEventListener(type, end);
    field.addEventListener("keydown", (event) => event.key === "Enter" && end());
  }

  change(changes) {
    this.history.set({ ...this.history.present, ...changes });
  }

  listen() {
    for (const radio of document.getElementsByName("kind")) {
      radio.addEventListener("change", () => this.setKind(radio.value));
    }
    for (const [id, key] of Object.entries({ temperature: "temperature", radius: "radius", at: "at" })) {
      const range = byId(id);
      stepWithKeys(range, 0.05, 0.25);
      range.addEventListener("input", () => this.preview({ [key]: Number(range.value) }));
      range.addEventListener("change", () => this.history.commit());
    }
    this.bindNumber("seed", `A whole number up to ${LARGEST_SEED}.`, (text) => {
      return /^\d+$/.test(text) && Number(text) <= LARGEST_SEED;
    });
    this.bindNumber("duration", `From ${SHORTEST_S} to 60 seconds.`, (text) => {
      return text === "" || (Number(text) >= SHORTEST_S && Number(text) <= 60);
    });
    const unknown = (text) => this.hint(`There is no sound “${text}”.`);
    const bind = (id, take) => this.sounds.bind(byId(id), take, unknown);
    bind("dataset-sound", (source) => this.from(source));
    bind("sound-a", (source) => this.change({ a: source }));
    bind("sound-b", (source) => this.change({ b: source }));
    this.sounds.acceptFiles((source) => this.from(source));
    byId("vary").addEventListener("click", () => this.vary());
    byId("swap").addEventListener("click", () => {
      const { a, b } = this.history.present;
      this.change({ a: b, b: a });
    });
  }

  preview(changes) {
    this.history.preview({ ...this.history.present, ...changes });
  }

  bindNumber(id, rule, isGood) {
    const field = byId(id);
    field.addEventListener("input", () => {
      const good = !field.validity.badInput && isGood(field.value);
      this.hint(good ? "" : rule);
      field.setAttribute("aria-invalid", String(!good));
      if (good) this.preview({ [id]: field.value === "" ? null : Number(field.value) });
    });
    field.addEventListener("change", () => {
      this.history.commit();
      // A value that is not good goes back to the last good one.
      field.removeAttribute("aria-invalid");
      this.show(this.history.present);
      field.value = this.history.present[id] ?? "";
    });
  }

  setKind(kind) {
    const { source, a } = this.history.present;
    this.change(kind === "between" ? { kind, a: a ?? source } : { kind });
  }

  /**
   * Start from a sound, as the model makes it, or let it be the one that is missing of A and B. A dot of the map stands
   * for a chunk of its file.
   */
  from(source, isChunk = false) {
    const { duration, kind, a, b } = this.history.present;
    if (kind === "between" && !(a && b)) {
      this.change(a ? { b: source } : { a: source });
      return;
    }
    const wanted = isChunk ? (duration ?? this.chunkS) : duration === this.chunkS ? null : duration;
    this.change({ kind: "around", source, radius: 0, axes: {}, duration: wanted });
  }

  random() {
    this.change({ kind: "sample", seed: randomSeed() });
  }

  /** Another sound near the one that was chosen; or another random one. */
  vary() {
    const { kind, radius } = this.history.present;
    if (kind === "around") this.change({ seed: randomSeed(), radius: radius || RADIUS });
    else if (kind === "sample") this.random();
  }

  hint(text) {
    byId("hint").textContent = text;
    byId("hint").hidden = !text;
  }

  show(/** @type {import("./form.js").Form} */ form) {
    for (const kind of KINDS) byId(`kind-${kind}`).hidden = kind !== form.kind;
    for (const radio of document.getElementsByName("kind")) radio.checked = radio.value === form.kind;
    for (const id of ["temperature", "radius", "at"]) {
      byId(id).value = String(form[id]);
      byId(`${id}-shown`).textContent = form[id].toFixed(2);
    }
    byId("seed-field").hidden = form.kind === "between";
    this.write("seed", String(form.seed));
    this.write("duration", form.duration === null ? "" : String(form.duration));
    this.write("dataset-sound", this.sounds.write(form.source));
    this.write("sound-a", this.sounds.write(form.a));
    this.write("sound-b", this.sounds.write(form.b));
    byId("vary").disabled = !form.source;
    const missing = {
      around: form.source ? "" : "Choose a sound, drop a file on the page, or click a dot on the map.",
      between: form.a && form.b ? "" : `Choose sound ${form.a ? "B" : "A"}, drop a file on the page, or click a dot.`,
    };
    this.hint(missing[form.kind] ?? "");
  }

  /** Text is not replaced while it is typed. */
  write(id, text) {
    const field = byId(id);
    if (!this.typedIn.has(field) && field.value !== text) field.value = text;
  }

  /** Show the duration that is used when none is given. */
  showDefault(/** @type {number} */ seconds) {
    byId("duration").placeholder = String(Math.round(100 * seconds) / 100);
  }
}
