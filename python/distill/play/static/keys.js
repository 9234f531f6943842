// The keys of the page, and the steps that keys move a slider by.

const TEXTS = new Set(["text", "number", "search", "email", "url", "password", "tel"]);

function takesText(target) {
  if (target.isContentEditable || target.tagName === "TEXTAREA") return true;
  return target.tagName === "INPUT" && TEXTS.has(target.type);
}

/** Whether the space bar already does something with what has the focus. */
function takesSpace(target) {
  return target.matches("button, select, summary, a, input:not([type=range])");
}

function nameOf(event) {
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() === "z") return event.shiftKey ? "redo" : "undo";
    return event.key.toLowerCase() === "y" ? "redo" : null;
  }
  if (event.key === " ") return takesSpace(event.target) ? null : "play";
  // Letters choose an option of a list.
  if (event.target.tagName === "SELECT") return null;
  const names = { r: "random", v: "vary", b: "original", k: "keep", s: "save", l: "loop", escape: "stop" };
  return names[event.key.toLowerCase()] ?? null;
}

/** Call actions by keys, but while text is typed. */
export function bindKeys(/** @type {Record<string, () => void>} */ actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.altKey || takesText(event.target)) return;
    const name = nameOf(event);
    if (!name) return;
    event.preventDefault();
    if (!event.repeat || name === "undo" || name === "redo") actions[name]();
  });
}

const UP = new Set(["ArrowRight", "ArrowUp", "PageUp"]);
const DOWN = new Set(["ArrowLeft", "ArrowDown", "PageDown"]);

/** Move a slider by steps of keys; its own step is that of the mouse, which is too fine for them. */
export function stepWithKeys(/** @type {HTMLInputElement} */ range, step, coarse) {
  let isMoved = false;
  range.addEventListener("keydown", (event) => {
    const direction = UP.has(event.key) ? 1 : DOWN.has(event.key) ? -1 : 0;
    if (!direction || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const by = event.shiftKey || event.key.startsWith("Page") ? coarse : step;
    range.value = (Number(range.value) + direction * by).toFixed(2);
    isMoved = true;
    range.dispatchEvent(new Event("input", { bubbles: true }));
  });
  const commit = () => {
    if (isMoved) range.dispatchEvent(new Event("change", { bubbles: true }));
    isMoved = false;
  };
  range.addEventListener("keyup", commit);
  range.addEventListener("blur", commit);
}
