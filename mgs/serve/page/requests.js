/* Questions to the server: a few at a time, again when it is busy, with the token where it asks for one. */

const MOST_AT_ONCE = 4;
const TOKEN = "mgs-token"; // its name in sessionStorage

let free = MOST_AT_ONCE;
const waiting = [];

/** What `work` returns, once fewer than `MOST_AT_ONCE` others are at work; rejects when `signal` aborts. */
export async function inTurn(signal, work) {
  await getTurn(signal);
  try {
    return await work();
  } finally {
    const next = waiting.shift();
    if (next) next();
    else free += 1;
  }
}

function getTurn(signal) {
  signal.throwIfAborted();
  if (free > 0) {
    free -= 1;
    return Promise.resolve();
  }
  return new Promise((resolve, reject) => {
    waiting.push(resolve);
    signal.addEventListener("abort", () => {
      const place = waiting.indexOf(resolve);
      if (place >= 0) waiting.splice(place, 1);
      reject(signal.reason); // of no effect where its turn had come
    });
  });
}

/**
 * The server's answer. A server that is busy (503) is asked again after the seconds that it names; `onBusy` gets these
 * and its reason.
 * Rejects with an `Error` in words, or with the signal's reason.
 */
export async function ask(path, { signal, body, onBusy } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await send(path, { method: body ? "POST" : "GET", body, signal, headers });
    if (answer.ok) return answer;
    if (answer.status === 401) {
      await askForToken(token, signal);
    } else if (answer.status === 503) {
      const seconds = Number(answer.headers.get("Retry-After")) || 1;
      onBusy?.(seconds, await readDetail(answer));
      await pause(seconds, signal);
    } else {
      throw new Error(await readDetail(answer));
    }
  }
}

async function send(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    options.signal?.throwIfAborted();
    const unread = options.body && !(await canBeRead(options.body));
    throw new Error(unread ? "The file cannot be read. It is a folder, or was changed or moved." : "The server does not answer.");
  }
}

/** Whether the browser can still read the files of a form: it only finds out when it sends them. */
async function canBeRead(form) {
  try {
    for (const file of form.getAll("images")) await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

async function readDetail(answer) {
  const content = await answer.json().catch(() => ({}));
  return typeof content.detail === "string" ? content.detail : `The server answered ${answer.status}.`;
}

function pause(seconds, signal) {
  return untilAborted(new Promise((resolve) => setTimeout(resolve, seconds * 1000)), signal);
}

function untilAborted(promise, signal) {
  if (!signal) return promise;
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
    promise.then(resolve, reject);
  });
}

let asking = null; // one form, however many requests wait for it

/** Resolves once there is another token than `refused`; rejects where the person gives none. */
function askForToken(refused, signal) {
  if (sessionStorage.getItem(TOKEN) !== refused) return Promise.resolve(); // given since that request was sent
  asking ??= showTokenForm(refused !== null).finally(() => (asking = null));
  return untilAborted(asking, signal);
}

function showTokenForm(wasRefused) {
  const dialog = document.getElementById("token");
  const text = document.getElementById("token-text");
  document.getElementById("token-problem").hidden = !wasRefused;
  text.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    const finish = () => {
      if (dialog.returnValue !== "given") return reject(new Error("The server wants a token."));
      sessionStorage.setItem(TOKEN, text.value);
      resolve();
    };
    dialog.addEventListener("close", finish, { once: true });
  });
}

document.querySelector("#token form").addEventListener("submit", (event) => {
  event.preventDefault(); // the policy of the page lets no form be sent
  document.getElementById("token").close("given");
});
document.getElementById("token-cancel").addEventListener("click", () => document.getElementById("token").close());
