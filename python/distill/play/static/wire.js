// The websocket of a run: one request on its way, and the newest that waits. Connects again when it is cut off.

import { ApiError, requestJson, socketAddress } from "./api.js";

const FIRST_WAIT_S = 0.5;
const LONGEST_WAIT_S = 10;
const SLOW_MS = 3000;

/** A message with a sound: its header, samples and spectrogram; docs/play.md describes it. */
export function parseReply(/** @type {ArrayBuffer} */ buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const samples = new Float32Array(buffer, 4 + length, header.samples);
  const spectrogram = new Uint8Array(buffer, 4 + length + samples.byteLength);
  return { ...header, samples, spectrogram: { ...header.spectrogram, values: spectrogram } };
}

export class Wire {
  /**
   * @param {string} run
   * @param {{onReply: Function, onError: Function, onProgress: Function, onChanged: Function,
   *   onLost: (error: ApiError) => void, onOpen: () => void}} handlers
   */
  constructor(run, handlers) {
    this.run = run;
    this.handlers = handlers;
    this.number = 0;
    this.played = 0;
    this.inFlight = null;
    this.waiting = null;
    this.purposes = new Map();
    this.wait = FIRST_WAIT_S;
    this.connect();
  }

  get isBusy() {
    return this.inFlight !== null;
  }

  /** Ask for a sound, instead of one that waits. `purpose` comes back with the reply. */
  send(message, purpose) {
    this.waiting = { message: { id: ++this.number, ...message }, purpose };
    this.flush();
  }

  flush() {
    // What takes long is not waited for: the server drops it for a request that starts from another sound.
    const isFree = !this.inFlight || this.inFlight.isSlow;
    if (!isFree || !this.waiting || this.socket.readyState !== WebSocket.OPEN) return;
    this.inFlight = this.waiting;
    this.waiting = null;
    const { message, purpose } = this.inFlight;
    this.purposes.set(message.id, purpose);
    this.expectSlow(this.inFlight);
    this.socket.send(JSON.stringify(message));
  }

  /** A request that gets no reply for long is not waited for. */
  expectSlow(request) {
    setTimeout(() => {
      request.isSlow = true;
      if (this.inFlight === request) this.flush();
    }, SLOW_MS);
  }

  connect() {
    this.socket = new WebSocket(socketAddress(this.run));
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.wait = FIRST_WAIT_S;
      this.handlers.onOpen();
      this.flush();
    };
    this.socket.onmessage = (event) => this.receive(event.data);
    this.socket.onclose = () => this.lost();
  }

  receive(data) {
    if (typeof data !== "string") {
      const reply = parseReply(data);
      const purpose = this.finish(reply.id);
      if (reply.id > this.played) {
        this.played = reply.id;
        this.handlers.onReply(reply, purpose);
      }
      return;
    }
    const message = JSON.parse(data);
    if (message.event === "changed") this.handlers.onChanged();
    else if (message.progress) {
      if (this.inFlight?.message.id === message.id) this.inFlight.isSlow = true;
      this.flush();
      this.handlers.onProgress(message.progress);
    } else if (message.error) {
      const purpose = this.finish(message.id);
      this.handlers.onError(new ApiError(message.error, message.tip), purpose);
    }
  }

  /** End a request, and send the one that waits; returns its purpose. */
  finish(id) {
    const purpose = this.purposes.get(id) ?? null;
    // Earlier ones were replaced, and get no reply.
    for (const number of this.purposes.keys()) if (id == null || number <= id) this.purposes.delete(number);
    if (id == null || this.inFlight?.message.id === id) this.inFlight = null;
    this.flush();
    return purpose;
  }

  async lost() {
    // What was on its way is sent again, unless there is something newer.
    this.waiting ??= this.inFlight && { message: this.inFlight.message, purpose: this.inFlight.purpose };
    this.inFlight = null;
    const seconds = this.wait;
    this.wait = Math.min(2 * this.wait, LONGEST_WAIT_S);
    setTimeout(() => this.connect(), 1000 * seconds);
    let error = new ApiError("The connection to distill play was lost.", "It is opened again by itself.");
    try {
      await requestJson("runs");
    } catch (reason) {
      error = reason;
    }
    if (this.socket.readyState !== WebSocket.OPEN) this.handlers.onLost(error);
  }
}
