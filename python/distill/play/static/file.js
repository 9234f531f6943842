// Saves the sound as a file, and shows the command line that writes the same.

import { request, runPath } from "./api.js";
import { attempt, say } from "./notices.js";

const byId = (id) => document.getElementById(id);

/** The name that a response has for its file. */
function nameOf(response, format) {
  const header = response.headers.get("Content-Disposition") ?? "";
  const encoded = /filename\*=UTF-8''([^;]+)/i.exec(header);
  if (encoded) return decodeURIComponent(encoded[1]);
  return /filename="?([^";]+)"?/i.exec(header)?.[1] ?? `sound.${format}`;
}

export class SoundFile {
  constructor(run, /** @type {() => object | null} */ current) {
    this.run = run;
    this.current = current;
    this.command = "";
    byId("save").addEventListener("click", () => this.save());
    byId("copy").addEventListener("click", () => this.copy());
    byId("format").addEventListener("change", () => this.showCommand(this.command));
  }

  get format() {
    return byId("format").value;
  }

  showCommand(/** @type {string} */ command) {
    this.command = command;
    const format = this.format === "wav" || !command ? "" : ` --format ${this.format}`;
    // A word each, so that lines end between words.
    const words = (command + format).split(/( )/).map((text) => {
      return text === " " ? text : Object.assign(document.createElement("span"), { textContent: text });
    });
    byId("command").replaceChildren(...words);
  }

  async copy() {
    const text = byId("command").textContent;
    if (!text) return;
    try {
      await navigator.clipboard.writeText(text);
      say("The command was copied.");
    } catch {
      getSelection().selectAllChildren(byId("command"));
      say("The command is selected: copy it with Ctrl+C.");
    }
  }

  async save() {
    const settings = this.current();
    if (!settings) {
      say("There is no sound to save yet.");
      return;
    }
    const { format } = this;
    const json = { settings, format, sample_format: null, sample_rate: null };
    say("Saving …");
    await attempt(async () => {
      const response = await request(runPath(this.run, "/save"), { method: "POST", json });
      const name = nameOf(response, format);
      const url = URL.createObjectURL(await response.blob());
      const link = Object.assign(document.createElement("a"), { href: url, download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
      say(`Saved: ${name}`);
    }, "save");
  }
}
