// The page of one run: joins its parts. A change of the controls is a step of the history, which makes a sound.

import { requestJson, runPath, request } from "./api.js";
import { SoundFile } from "./file.js";
import { INITIAL, describe, fromSettings, moved, originalOf, toSettings } from "./form.js";
import { History } from "./history.js";
import { bindKeys } from "./keys.js";
import { MapPanel } from "./map_panel.js";
import { attempt, inProgress, say } from "./notices.js";
import { Shelf } from "./shelf.js";
import { Sliders } from "./sliders.js";
import { Sounds } from "./sounds.js";
import { Stage } from "./stage.js";
import { Start } from "./start.js";
import { Training } from "./training.js";

const AGAIN_MS = 5000;
const byId = (id) => document.getElementById(id);
const onClick = (id, action) => byId(id).addEventListener("click", action);

export class Instrument {
  constructor(/** @type {string} */ run) {
    this.run = run;
    this.isTraining = false;
    /** @type {History<import("./form.js").Form>} */
    this.history = new History(INITIAL);
    this.sounds = new Sounds(run);
    this.start = new Start(this.history, this.sounds);
    this.sliders = new Sliders(byId("axes"), byId("more-axes"), {
      onInput: (number, value) => this.preview({ axes: moved(this.form.axes, { [number]: value }) }),
      onCommit: () => this.history.commit(),
    });
    this.stage = new Stage(run, {
      onSound: (reply) => this.showSound(reply),
      // The command of the sound before would be that of other settings.
      onFailed: () => this.file.showCommand(""),
      onChanged: () => this.training.poll(),
      onListening: () => this.showListening(),
    });
    this.file = new SoundFile(run, () => toSettings(this.form));
    this.shelf = new Shelf(run, {
      current: () => toSettings(this.form) && { settings: toSettings(this.form), name: describe(this.form) },
      onLoad: (settings) => this.load(settings),
      onHear: (settings) => this.stage.hear(settings),
    });
    this.map = new MapPanel(run, {
      onPick: (source, how) => this.pick(source, how),
      onDrag: (source, axes) => this.drag(source, axes),
      onCommit: () => this.history.commit(),
    });
    this.history.subscribe(() => this.follow());
    this.bind();
  }

  get form() {
    return this.history.present;
  }

  preview(changes) {
    this.history.preview({ ...this.form, ...changes });
  }

  async open() {
    byId("title").textContent = this.run;
    document.title = `${this.run} · distill play`;
    const details = await this.describe();
    byId("instrument").hidden = byId("keys").hidden = false;
    this.training = new Training(this.run, details.sample_rate, {
      onState: (news) => this.onNews(news),
      onSamples: (samples, sampleRate) => this.stage.playSamples(samples, sampleRate),
    });
    this.use(details);
    await Promise.all([
      attempt(() => this.sounds.load(), "sounds"),
      attempt(() => this.shelf.load(), "shelf"),
      this.loadMap(),
      this.training.poll(),
    ]);
    this.start.show(this.form);
  }

  /** The details of the run, once it can be read: what is damaged may be mended, and a list leads to other runs. */
  async describe() {
    for (;;) {
      const details = await attempt(() => requestJson(runPath(this.run)), "server");
      if (details) return details;
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }

  /** Use the details of the run: anew when its weights or its analysis were replaced. */
  use(details) {
    this.details = details;
    this.start.chunkS = details.chunk_s;
    byId("facts").textContent = `${details.sample_rate / 1000} kHz · sounds of ${details.dataset}`;
    byId("both-label").hidden = details.channels < 2;
    this.sliders.setAxes(details.axes);
    this.showAnalysis(details.analysis);
    if (!details.playable) this.play();
    this.stage.use(details);
    this.follow();
  }

  loadMap() {
    const names = this.details.axes.slice(0, 2).map((axis) => axis.name);
    return this.details.analysis.state === "ready" ? attempt(() => this.map.load(names), "map") : this.map.clear();
  }

  bind() {
    const actions = {
      play: () => this.play(),
      stop: () => this.stage.stop(),
      random: () => this.start.random(),
      vary: () => this.start.vary(),
      original: () => this.toggleOriginal(),
      undo: () => this.history.undo(),
      redo: () => this.history.redo(),
    };
    for (const [id, action] of Object.entries(actions)) if (id !== "vary") onClick(id, action);
    onClick("reset-all", () => this.history.set({ ...this.form, axes: {} }));
    onClick("analyse", () => this.analyse());
    const loop = byId("loop");
    loop.addEventListener("change", () => this.stage.setLooping(loop.checked));
    byId("both").addEventListener("change", (event) => this.stage.setChannels(event.target.checked ? 2 : 1));
    bindKeys({
      ...actions,
      keep: () => this.shelf.keep(),
      save: () => this.file.save(),
      loop: () => loop.click(),
    });
  }

  /** What follows a change of the controls. */
  follow() {
    const { form } = this;
    const settings = toSettings(form);
    this.start.show(form);
    this.sliders.show(form.axes);
    byId("undo").disabled = !this.history.past.length;
    byId("redo").disabled = !this.history.future.length;
    byId("reset-all").disabled = !Object.keys(form.axes).length;
    byId("original").disabled = !originalOf(form);
    if (settings) this.shelf.suggest(describe(form));
    else this.file.showCommand("");
    this.stage.follow(settings, originalOf(form));
  }

  showSound(reply) {
    this.file.showCommand(reply.command ?? "");
    this.start.showDefault(reply.samples.length / reply.sample_rate);
    if (!reply.coordinates) return;
    this.sliders.mark(reply.coordinates, reply.settings.axes ?? {});
    const { around, between } = reply.settings;
    this.map.mark(reply.coordinates, around ? [around.source] : between ? [between.from, between.to] : []);
  }

  showListening() {
    byId("original").setAttribute("aria-pressed", String(this.stage.isOriginal));
  }

  play() {
    if (this.details.playable) this.stage.play();
    else say(this.details.reason ?? "This run cannot be played yet.");
  }

  toggleOriginal() {
    if (originalOf(this.form)) this.stage.toggleOriginal();
    else say("A random sound has no original.");
  }

  load(settings) {
    const before = this.form;
    this.history.set(fromSettings(settings, before));
    if (this.form === before) this.stage.play();
  }

  /** Play a dot of the map, as the model makes it or the original. */
  pick(source, how) {
    const isPresent = this.form.kind === "around" && JSON.stringify(this.form.source) === JSON.stringify(source);
    if (how === "toggle" && isPresent) {
      this.stage.toggleOriginal();
      return;
    }
    const before = this.form;
    this.start.from(source, true);
    if (how) this.stage.toggleOriginal(true);
    else if (JSON.stringify(before) === JSON.stringify(this.form)) this.stage.toggleOriginal(false);
  }

  drag(source, axes) {
    const duration = this.form.duration ?? this.details.chunk_s;
    this.preview({ kind: "around", source, radius: 0, duration, axes: moved({}, axes) });
  }

  /** What the server says about the run while it is open. */
  async onNews(news) {
    const { weights, analysis } = this.details;
    const hasWeights = news.weights !== weights;
    this.isTraining = news.state === "training";
    this.showAnalysis(news.analysis);
    if (!hasWeights && (news.analysis.state === analysis.state || news.analysis.state === "running")) return;
    const details = await requestJson(runPath(this.run));
    this.use(details);
    await this.loadMap();
    if (hasWeights) say(`New weights${news.epoch ? `, of epoch ${news.epoch}` : ""}: sounds are made with them.`);
    else if (details.analysis.state === "ready") say("The run was analysed: sliders and map are ready.");
  }

  showAnalysis({ state, reason, progress }) {
    const texts = {
      missing: "This run was not analysed yet. The analysis finds the sliders and draws the map.",
      outdated: "The analysis is of earlier weights. A new one finds the sliders and draws the map.",
      running: progress ? inProgress(progress) : "Analysing …",
      failed: "The analysis failed.",
    };
    // The run is locked until its training has ended, which ends with an analysis.
    if (this.isTraining) texts.missing = texts.outdated = "Sliders and map come with the analysis, when training ends.";
    byId("no-analysis").hidden = state === "ready";
    byId("no-analysis-text").textContent = [texts[state], state === "failed" ? reason : ""].filter(Boolean).join(" ");
    byId("analyse").hidden = state === "running" || this.isTraining;
    const bar = byId("analysis-progress");
    bar.hidden = state !== "running";
    if (progress?.total) Object.assign(bar, { max: progress.total, value: progress.current });
    else bar.removeAttribute("value");
  }

  async analyse() {
    await attempt(async () => {
      await request(runPath(this.run, "/analysis"), { method: "POST" });
      // The next answer that is not "running" is the result.
      this.details.analysis = { state: "running" };
    }, "analysis");
    await this.training.poll();
  }
}
