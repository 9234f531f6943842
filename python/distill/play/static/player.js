// Plays one sound at a time with Web Audio. The newest replaces the one that plays with a short equal-power crossfade.

const FADE_S = 0.01;
const POINTS = 32;
const RISE = Float32Array.from({ length: POINTS }, (_, i) => Math.sin((Math.PI / 2) * (i / (POINTS - 1))));
const FALL = RISE.slice().reverse();

export class Player {
  constructor() {
    /** @type {AudioContext | null} */
    this.context = null;
    this.isAwake = false;
    this.isLooping = false;
    this.sound = null;
    this.voice = null;
  }

  /** Start audio; browsers allow it in answer to a gesture only. Without a device, sounds "play" in silence. */
  wake() {
    this.isAwake = true;
    try {
      this.context ??= new AudioContext({ latencyHint: "interactive" });
      if (this.context.state === "suspended") this.context.resume().catch(() => {});
    } catch {
      this.context = null;
    }
  }

  /** Play a sound: from its beginning, or from where the last one is while sounds are looped. A quiet one waits. */
  play(/** @type {Float32Array} */ samples, /** @type {number} */ sampleRate, isQuiet = false) {
    const before = this.position;
    this.sound = { samples, sampleRate, duration: samples.length / sampleRate };
    window.lastSound = samples;
    if (isQuiet || !this.isAwake || !samples.length) return;
    const from = this.isLooping && before !== null ? before % this.sound.duration : 0;
    const last = this.voice;
    const nodes = this.startNodes(from, last !== null);
    this.voice = { isLooping: this.isLooping, duration: this.sound.duration, from, began: this.clocks(), ...nodes };
    this.release(last);
  }

  stop() {
    this.release(this.voice);
    this.voice = null;
  }

  setLooping(/** @type {boolean} */ isLooping) {
    const position = this.position;
    this.isLooping = isLooping;
    if (position === null) return;
    Object.assign(this.voice, { isLooping, from: position, began: this.clocks() });
    if (this.voice.source) this.voice.source.loop = isLooping;
  }

  /** Where the sound is, in seconds; null if none plays. */
  get position() {
    if (!this.voice) return null;
    const { from, began } = this.voice;
    const clock = this.isRunning ? "audio" : "wall";
    const passed = from + Math.max(0, this.clocks()[clock] - began[clock]);
    if (this.voice.isLooping) return passed % this.voice.duration;
    if (passed < this.voice.duration) return passed;
    this.voice = null;
    return null;
  }

  /** Whether the audio device runs: it starts some time after it was woken, or never. */
  get isRunning() {
    return this.context?.state === "running";
  }

  /** Seconds, by the clock of the audio device and by another one. */
  clocks() {
    return { audio: this.context?.currentTime ?? 0, wall: performance.now() / 1000 };
  }

  startNodes(from, isFaded) {
    if (!this.context) return {};
    const { samples, sampleRate } = this.sound;
    const buffer = this.context.createBuffer(1, samples.length, sampleRate);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(this.context, { buffer, loop: this.isLooping });
    // Two gains: a fade that has begun is not disturbed by the next one.
    const rise = new GainNode(this.context);
    const fall = new GainNode(this.context);
    // The attack of a sound that replaces none is not faded.
    if (isFaded) rise.gain.setValueCurveAtTime(RISE, this.context.currentTime, FADE_S);
    source.connect(rise).connect(fall).connect(this.context.destination);
    source.start(0, from);
    return { source, fall };
  }

  release(voice) {
    if (!voice?.source) return;
    const now = this.context.currentTime;
    voice.fall.gain.setValueCurveAtTime(FALL, now, FADE_S);
    voice.source.stop(now + FADE_S);
  }
}
