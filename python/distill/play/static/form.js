// What the controls of the page say, and the settings of a sound that they stand for.

/**
 * @typedef {{kind: "dataset" | "dropped", name: string, offset: number}} Source
 * @typedef {{kind: "sample" | "around" | "between", seed: number, duration: number | null,
 *   axes: Record<string, number>, temperature: number, source: Source | null, radius: number,
 *   a: Source | null, b: Source | null, at: number}} Form
 */

export const FARTHEST = 20;
export const LARGEST_SEED = 2 ** 31 - 1;

/** @type {Form} */
export const INITIAL = Object.freeze({
  kind: "sample",
  seed: 0,
  duration: null,
  axes: {},
  temperature: 1,
  source: null,
  radius: 0,
  a: null,
  b: null,
  at: 0.5,
});

/** The settings of the sound, as the server takes them; null while a sound to start from is missing. */
export function toSettings(/** @type {Form} */ form) {
  const settings = { seed: form.seed, duration: form.duration, axes: form.axes };
  if (form.kind === "sample") return { ...settings, sample: { temperature: form.temperature } };
  if (form.kind === "around") {
    return form.source && { ...settings, around: { source: form.source, radius: form.radius } };
  }
  return form.a && form.b && { ...settings, between: { from: form.a, to: form.b, at: form.at } };
}

/** The form of settings; what they do not say stays as it is in `form`. */
export function fromSettings(settings, /** @type {Form} */ form) {
  const { seed, duration = null, axes = {}, sample, around, between } = settings;
  const common = { ...form, seed: seed ?? form.seed, duration, axes };
  if (sample) return { ...common, kind: "sample", temperature: sample.temperature };
  if (around) return { ...common, kind: "around", source: around.source, radius: around.radius };
  return { ...common, kind: "between", a: between.from, b: between.to, at: between.at };
}

/** The recording that stands behind the sound, or null: a random sound has none. */
export function originalOf(/** @type {Form} */ form) {
  if (form.kind === "sample") return null;
  if (form.kind === "around") return form.source;
  return form.at <= 0.5 ? form.a : form.b;
}

/** Moves along axes with one of them set; zeros are left out, values are rounded and kept within the limits. */
export function moved(axes, changes) {
  const result = { ...axes };
  for (const [number, value] of Object.entries(changes)) {
    const kept = Math.round(1000 * Math.max(-FARTHEST, Math.min(FARTHEST, value))) / 1000;
    if (kept) result[number] = kept;
    else delete result[number];
  }
  return result;
}

export const randomSeed = () => Math.floor(Math.random() * 1e6);

/** A few words for what the form makes, as a name to keep it under. */
export function describe(/** @type {Form} */ form) {
  const base = (source) => source.name.split("/").pop() + (source.offset ? ` @ ${source.offset} s` : "");
  const moves = Object.keys(form.axes).length ? ", moved" : "";
  if (form.kind === "sample") return `Random ${form.seed}${moves}`;
  if (form.kind === "around") {
    const varied = form.radius ? `, varied ${form.seed}` : "";
    return `${base(form.source)}${varied}${moves}`;
  }
  return `${base(form.a)} → ${base(form.b)} at ${form.at}${moves}`;
}
