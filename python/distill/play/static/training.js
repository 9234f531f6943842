// What a run learns: asks the server what is new, draws loss and quality, and lists previews to play.

import { address, request, requestJson, runPath } from "./api.js";
import { Chart } from "./chart.js";
import { attempt, complain, settle } from "./notices.js";

const byId = (id) => document.getElementById(id);
const WAIT_MS = { analysis: 700, training: 2000, idle: 5000 };
const LOSS = [
  { key: "train_loss", colour: "--line-b", label: "training" },
  { key: "val_loss", colour: "--line-a", label: "validation" },
];
const QUALITY = [
  { key: "val_magnitude_r2", colour: "--line-a", label: "R² of magnitude" },
  { key: "val_if_r2", colour: "--line-b", label: "R² of frequency" },
];

/** Seconds in words: 45 s, 12 min, 3 h 20 min. */
export function inWords(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function caption(id, name, lines) {
  const parts = lines.map(({ colour, label }) => {
    const part = document.createElement("span");
    part.className = "series";
    part.style.setProperty("--series", `var(${colour})`);
    part.textContent = label;
    return part;
  });
  byId(id).replaceChildren(name, ...parts);
}

export class Training {
  /**
   * @param {{onState: (news: object) => void, onSamples: (samples: Float32Array, rate: number) => void}} handlers
   */
  constructor(run, sampleRate, handlers) {
    this.run = run;
    this.sampleRate = sampleRate;
    this.handlers = handlers;
    this.rows = new Map();
    this.previews = new Set();
    this.epoch = 0;
    this.timer = 0;
    caption("loss-caption", "Loss", LOSS);
    caption("quality-caption", "Quality", QUALITY);
    this.loss = new Chart(byId("loss"), LOSS, "Loss");
    this.quality = new Chart(byId("quality"), QUALITY, "Quality");
    byId("training-chip").addEventListener("click", () => byId("training").focus());
    document.addEventListener("visibilitychange", () => !document.hidden && this.poll());
  }

  /** Ask what is new, now and from then on. */
  async poll() {
    clearTimeout(this.timer);
    const turn = (this.turn = Symbol("turn"));
    let wait = WAIT_MS.idle;
    try {
      const query = { after: String(this.epoch) };
      const news = await requestJson(runPath(this.run, "/training"), { query });
      if (turn !== this.turn) return;
      settle("server");
      if (this.isOther(news)) {
        this.forget();
        this.poll();
        return;
      }
      this.show(news);
      if (news.state === "training") wait = WAIT_MS.training;
      if (news.analysis.state === "running") wait = WAIT_MS.analysis;
      await this.handlers.onState(news);
    } catch (error) {
      if (turn !== this.turn) return;
      complain(error, "server");
    }
    if (!document.hidden && turn === this.turn) this.timer = setTimeout(() => this.poll(), wait);
  }

  /** Whether the run was begun anew, or resumed from an earlier epoch: then all of it is asked for. */
  isOther({ epoch, metrics, previews }) {
    const epochs = new Set(previews.map((preview) => preview.epoch));
    const isLost = this.previewEpochs.some((known) => !epochs.has(known));
    return this.epoch > 0 && ((epoch ?? 0) < this.epoch || metrics[0]?.epoch > this.epoch + 1 || isLost);
  }

  forget() {
    this.epoch = 0;
    this.rows.clear();
    this.previews.clear();
    byId("previews").replaceChildren();
  }

  get previewEpochs() {
    return [...byId("previews").children].map((row) => Number(row.dataset.epoch));
  }

  show(news) {
    const isTraining = news.state === "training";
    for (const row of news.metrics) this.rows.set(row.epoch, row);
    this.epoch = news.epoch ?? 0;
    byId("training").hidden = !isTraining && !this.rows.size;
    const left = isTraining && news.seconds_left != null ? `, ${inWords(news.seconds_left)} left` : "";
    const epochs = `epoch ${news.epoch} of ${news.epochs}${left}`;
    byId("training-text").textContent = isTraining ? epochs : `${news.epoch} ${news.epoch === 1 ? "epoch" : "epochs"}`;
    byId("training-chip").hidden = !isTraining;
    byId("training-chip").textContent = `Training · ${epochs}`;
    const bar = byId("training-progress");
    bar.hidden = !isTraining || !news.epochs;
    Object.assign(bar, { max: news.epochs || 1, value: news.epoch ?? 0 });
    const rows = [...this.rows.values()].sort((a, b) => a.epoch - b.epoch);
    this.loss.show(rows);
    this.quality.show(rows);
    for (const preview of news.previews) this.addPreview(preview);
  }

  addPreview({ epoch, sounds, picture }) {
    const key = `${epoch} ${sounds.length} ${picture}`;
    if (this.previews.has(key)) return;
    this.previews.add(key);
    byId("previews").querySelector(`[data-epoch="${epoch}"]`)?.remove();
    const row = document.createElement("div");
    row.className = "preview";
    row.dataset.epoch = epoch;
    const title = Object.assign(document.createElement("h3"), { textContent: `Epoch ${epoch}` });
    row.append(title);
    for (const sound of sounds) {
      const words = sound.replace("-", " ").replace("original", "recording");
      const made = Object.assign(document.createElement("button"), { type: "button", textContent: words });
      made.setAttribute("aria-label", `${words}, epoch ${epoch}`);
      made.addEventListener("click", () => this.hear(epoch, sound));
      row.append(made);
    }
    if (picture) {
      const link = Object.assign(document.createElement("a"), { textContent: "picture", target: "_blank" });
      link.href = address(runPath(this.run, `/previews/${epoch}/picture`));
      link.rel = "noreferrer";
      link.setAttribute("aria-label", `Picture of epoch ${epoch}`);
      row.append(link);
    }
    // The newest first.
    const later = [...byId("previews").children].filter((other) => Number(other.dataset.epoch) > epoch);
    if (later.length) later.at(-1).after(row);
    else byId("previews").prepend(row);
  }

  async hear(epoch, sound) {
    await attempt(async () => {
      const response = await request(runPath(this.run, `/previews/${epoch}/${encodeURIComponent(sound)}`));
      const decoder = new OfflineAudioContext(1, 1, this.sampleRate);
      const decoded = await decoder.decodeAudioData(await response.arrayBuffer());
      this.handlers.onSamples(decoded.getChannelData(0), this.sampleRate);
    }, "preview");
  }
}
