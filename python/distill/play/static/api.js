// Requests to the server, with the token of the page's address.

export const token = new URLSearchParams(location.search).get("token") ?? "";

const GONE_TIP = "Start distill play again, and open the address that it prints.";

/** An error of the server, with a tip what to do about it. */
export class ApiError extends Error {
  constructor(message, tip = null, status = 0) {
    super(message);
    this.tip = tip;
    this.status = status;
  }
}

/** The path of a run below /api. */
export const runPath = (name, rest = "") => `runs/${encodeURIComponent(name)}${rest}`;

/** An address with the token in it, for pictures and sounds. */
export const address = (path) => `/api/${path}?${new URLSearchParams({ token })}`;

/** The address of the websocket of a run. */
export const socketAddress = (name) =>
  `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${address(runPath(name, "/play"))}`;

/** What an answer that is no success says. */
function fault(status, text) {
  try {
    const { error, tip } = JSON.parse(text);
    if (typeof error === "string") return new ApiError(error, tip ?? null, status);
  } catch {
    // Not one of our errors.
  }
  return new ApiError(`The server answered with status ${status}.`, null, status);
}

/**
 * Send a request; resolves to the response if it is a success.
 * @param {string} path below /api
 * @param {{method?: string, json?: unknown, query?: Record<string, string>}} [options]
 * @returns {Promise<Response>}
 */
export async function request(path, { method = "GET", json, query } = {}) {
  const headers = { Authorization: `Bearer ${token}` };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const body = json === undefined ? undefined : JSON.stringify(json);
  let response;
  try {
    response = await fetch(`/api/${path}${query ? `?${new URLSearchParams(query)}` : ""}`, { method, headers, body });
  } catch {
    throw new ApiError("distill play does not answer.", GONE_TIP);
  }
  if (!response.ok) throw fault(response.status, await response.text());
  return response;
}

/** As `request`, for an answer in JSON. */
export async function requestJson(path, options) {
  return (await request(path, options)).json();
}

/**
 * Upload a file; fetch would not tell how far it is.
 * @param {string} path below /api
 * @param {File} file
 * @param {(share: number) => void} onProgress
 */
export function upload(path, file, onProgress) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", `/api/${path}?${new URLSearchParams({ name: file.name })}`);
    sending.setRequestHeader("Authorization", `Bearer ${token}`);
    sending.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    sending.onerror = () => reject(new ApiError(`${file.name}: the upload was cut off.`, "Try it again."));
    sending.onload = () => {
      if (sending.status >= 200 && sending.status < 300) resolve(JSON.parse(sending.responseText));
      else reject(fault(sending.status, sending.responseText));
    };
    sending.send(file);
  });
}
