// The sound on stage: asks for it, plays it, shows its spectrogram and level. A/B goes between model and original.

import { levels, inWords, Meter } from "./meter.js";
import { complain, inProgress, say, settle } from "./notices.js";
import { Player } from "./player.js";
import { Spectrogram } from "./spectrogram.js";
import { Wire } from "./wire.js";

const SLOW_MS = 400;
const byId = (id) => document.getElementById(id);

export class Stage {
  /** @param {{onSound: (reply: object) => void, onFailed: () => void, onChanged: () => void, onListening: () => void}} handlers */
  constructor(run, handlers) {
    this.run = run;
    this.handlers = handlers;
    this.player = new Player();
    this.spectrogram = new Spectrogram(byId("spectrogram"), byId("cursor"));
    this.meter = new Meter(byId("meter"));
    this.channels = 1;
    this.settings = null;
    this.original = null;
    // What was asked for last, and what is known: the model's sound and the recording behind it.
    this.asked = null;
    this.made = null;
    this.recorded = null;
    this.isOriginal = false;
    this.frame = 0;
    const wake = () => this.player.wake();
    for (const type of ["pointerdown", "pointerup", "keydown"]) addEventListener(type, wake, { capture: true });
  }

  /** Use the details of the run: anew after its weights were replaced. */
  use(details) {
    this.spectrogram.setScales(details.bands_hz, details.hop_s);
    if (!details.playable) {
      this.showBusy(details.reason ?? "This run cannot be played yet.");
      return;
    }
    this.hideBusy();
    this.wire ??= new Wire(this.run, {
      onReply: (reply, purpose) => this.receive(reply, purpose),
      onError: (error, purpose) => this.fail(error, purpose),
      onProgress: (progress) => this.showBusy(inProgress(progress)),
      onChanged: this.handlers.onChanged,
      onLost: (error) => complain(error, "server"),
      onOpen: () => settle("server") && say("The connection to distill play is back."),
    });
    this.asked = this.made = this.recorded = null;
    // A sound that nobody asked for is not played, unless it takes the place of one that plays.
    if (this.settings) this.ask(true);
  }

  /** Make the sound of settings, if they are others than before. `original` is the recording behind it. */
  follow(settings, original) {
    const isNew = JSON.stringify(settings) !== JSON.stringify(this.settings);
    this.settings = settings;
    this.original = original;
    if (isNew && settings) this.ask();
  }

  ask(isUnasked = false) {
    this.listenTo(false);
    this.asked = this.key();
    this.send({ settings: this.settings, channels: this.channels }, { kind: "made", key: this.asked, isUnasked });
  }

  key = () => JSON.stringify([this.settings, this.channels]);
  originalKey = () => JSON.stringify([this.original, this.duration, this.channels]);

  /** The length of the model's sound, seconds, if it is known: the recording is played as long. */
  get duration() {
    if (this.settings?.duration) return this.settings.duration;
    const { reply } = this.made?.key === this.key() ? this.made : {};
    return reply ? reply.samples.length / reply.sample_rate : null;
  }

  send(message, purpose) {
    if (!this.wire) return;
    this.wire.send(message, purpose);
    clearTimeout(this.slow);
    this.slow = setTimeout(() => this.wire.isBusy && this.showBusy("Making the sound …"), SLOW_MS);
  }

  receive(reply, purpose) {
    settle("sound");
    this.hideBusy();
    const { kind, key, isUnasked } = purpose ?? { kind: "heard" };
    if (kind === "made") {
      this.made = { reply, key };
      this.handlers.onSound(reply);
    }
    if (kind === "original") this.recorded = { reply, key };
    // A/B may have gone to the other one meanwhile.
    if (kind === "heard" || (kind === "original") === this.isOriginal) {
      this.present(reply, isUnasked && this.player.position === null);
    }
  }

  fail(error, purpose) {
    this.hideBusy();
    if (purpose?.kind === "made") {
      this.asked = null;
      this.handlers.onFailed();
    }
    if (purpose?.kind === "original") this.listenTo(false);
    complain(error, "sound");
  }

  present(reply, isQuiet = false) {
    this.shown = reply;
    this.spectrogram.show(reply);
    this.player.play(reply.samples, reply.sample_rate, isQuiet);
    const seconds = `${(reply.samples.length / reply.sample_rate).toFixed(2)} s`;
    const made = reply.kind === "sound" ? [`made in ${Math.round(reply.made_ms)} ms`] : [];
    const parts = [reply.kind === "original" ? "Original" : "", seconds, inWords(levels(reply.samples)), ...made];
    byId("about-sound").textContent = [...parts, ...reply.notes].filter(Boolean).join(" · ");
    this.animate();
  }

  /** Play what is on stage from its beginning; while sounds are looped, stop it. */
  play() {
    if (this.player.isLooping && this.player.position !== null) {
      this.player.stop();
      return;
    }
    const known = this.isOriginal ? this.recorded : this.made;
    const key = this.isOriginal ? this.originalKey() : this.key();
    if (known?.key === key) this.present(known.reply);
    else if (!this.isOriginal && this.settings && this.asked !== key) this.ask();
    else if (this.shown) this.present(this.shown);
  }

  stop() {
    this.player.stop();
  }

  /** Play other settings once; the controls stay as they are. */
  hear(settings) {
    this.listenTo(false);
    this.send({ settings, channels: this.channels }, { kind: "heard" });
  }

  /** Play samples that come from elsewhere. */
  playSamples(samples, sampleRate) {
    this.player.play(samples, sampleRate);
    this.animate();
  }

  /** A/B: from the model's sound to the recording behind it, or back. */
  toggleOriginal(isOriginal = !this.isOriginal) {
    if (!isOriginal) {
      this.listenTo(false);
      if (this.made?.key === this.key()) this.present(this.made.reply);
      else if (this.settings) this.ask();
      return;
    }
    if (!this.original) return;
    this.listenTo(true);
    if (this.recorded?.key === this.originalKey()) this.present(this.recorded.reply);
    else {
      const { original, duration, channels } = this;
      this.send({ original, duration, channels }, { kind: "original", key: this.originalKey() });
    }
  }

  listenTo(isOriginal) {
    this.isOriginal = isOriginal;
    this.handlers.onListening();
  }

  setChannels(/** @type {1 | 2} */ channels) {
    this.channels = channels;
    if (this.isOriginal) this.toggleOriginal(true);
    else if (this.settings) this.ask();
  }

  setLooping(/** @type {boolean} */ isLooping) {
    this.player.setLooping(isLooping);
  }

  showBusy(text) {
    byId("busy").textContent = text;
    byId("busy").hidden = false;
  }

  hideBusy() {
    clearTimeout(this.slow);
    byId("busy").hidden = true;
  }

  /** Move cursor and meter while there is something to show. */
  animate() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      const position = this.player.position;
      this.spectrogram.moveCursor(this.player.sound?.samples === this.shown?.samples ? position : null);
      const isFalling = this.meter.update(this.player.sound, position);
      if (position !== null || isFalling) this.animate();
    });
  }
}
