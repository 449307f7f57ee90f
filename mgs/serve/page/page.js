/* The page: images as cards, their prompts, their scores, their order. */

import { ask, inTurn } from "./requests.js";
import { make, openReasons } from "./why.js";

const COLUMNS = ["image", "prompt", "prompt_read", "quality", "authenticity", "correspondence", "overall", "status", "checkpoint"];
const UNSCORED = -Number.MAX_VALUE; // sorts behind every score; differences of infinities would be no numbers
const CANCELLED = "Cancelled.";
const QUIET = 3000; // milliseconds at least between two announcements of progress

const $ = (selector, root = document) => root.querySelector(selector);
const cards = []; // in the order in which they were added
let info = null; // the server's answer to /info
let checkpoint = null; // one of info.checkpoints

// Cards

/** Add images: files of the browser, with a prompt and where it is from if that is known already. */
function addFiles(files, known = null) {
  for (const file of files) {
    const card = { file, url: URL.createObjectURL(file), prompt: null, inside: known, entry: null, problem: "", abort: null };
    card.node = makeNode(card);
    cards.push(card);
    $("#cards").append(card.node);
    setPrompt(card, known ? null : $("#for-all").value.trim() || null);
  }
  showTools();
}

function makeNode(card) {
  const node = $("#card-template").content.firstElementChild.cloneNode(true);
  const name = card.file.name;
  const image = $("img", node);
  $("h3", node).textContent = name;
  image.alt = `preview of ${name}`;
  image.addEventListener("error", () => {
    image.hidden = true;
    $(".no-preview", node).hidden = false;
  });
  image.src = card.url;
  const field = $("textarea", node);
  field.addEventListener("blur", () => editPrompt(card, field.value)); // "change" misses what Enter has taken since
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    editPrompt(card, field.value);
  });
  nameButton($(".why", node), name).addEventListener("click", () => explain(card));
  nameButton($(".remove", node), name).addEventListener("click", () => remove(card));
  return node;
}

/** Tell one card's buttons from another's for those who hear them. */
function nameButton(button, name) {
  button.setAttribute("aria-label", `${button.textContent}: ${name}`);
  return button;
}

function editPrompt(card, text) {
  if (text !== (card.prompt ?? "")) setPrompt(card, text);
}

/** Give a card a prompt, or null for the one inside its file, and score it with that. */
function setPrompt(card, text) {
  card.prompt = text;
  showPrompt(card);
  rescore(card);
}

function remove(card) {
  const next = card.node.nextElementSibling ?? card.node.previousElementSibling;
  drop(card);
  (next ? $(".remove", next) : $("#choose")).focus();
  settle();
}

function drop(card) {
  giveUp(card);
  URL.revokeObjectURL(card.url);
  card.node.remove();
  cards.splice(cards.indexOf(card), 1);
}

// Scoring

function giveUp(card) {
  card.abort?.abort();
  card.abort = null;
}

/** Score a card, in its turn; what it was waiting for before is given up. */
async function rescore(card) {
  giveUp(card);
  const abort = new AbortController();
  Object.assign(card, { abort, entry: null, checkpoint: null, reasons: null, problem: "" });
  showCard(card, "Waiting");
  showProgress();
  try {
    await ready;
    await inTurn(abort.signal, () => work(card, abort.signal));
  } catch (error) {
    if (card.abort === abort) card.problem = error.message;
  }
  if (card.abort !== abort) return; // another prompt took over, or it was given up
  card.abort = null;
  showCard(card);
  settle();
}

async function work(card, signal) {
  const { bytes } = info.limits;
  if (card.file.size > bytes) throw new Error(`The file is larger than this server takes (${inWords(bytes)}).`);
  if (card.prompt === null) {
    showCard(card, "Looking for its prompt…");
    card.inside ??= await findPrompt(card, signal);
    card.prompt = card.inside.prompt ?? "";
    if (!$("textarea", card.node).value) showPrompt(card); // else somebody is writing another
  }
  showCard(card, "Scoring…");
  const by = checkpoint.name;
  const entry = await score(card, by, false, signal, (state) => showCard(card, state));
  Object.assign(card, { entry, checkpoint: by });
}

/** The prompt inside the file, and where in it. */
function findPrompt(card, signal) {
  return askOf(card, "prompt", {}, signal, (state) => showCard(card, state));
}

/** The server's entry for a card, by the checkpoint `by`; `tell` gets a text while the server is busy. */
function score(card, by, isExplained, signal, tell) {
  const fields = { checkpoint: by, explain: isExplained };
  // The server finds a prompt inside a file itself, and takes the generator's syntax out of it.
  if (card.inside?.prompt !== card.prompt || card.inside.isGiven) fields.prompts = card.prompt;
  return askOf(card, "score", fields, signal, tell);
}

async function askOf({ file }, path, fields, signal, tell) {
  const body = new FormData();
  body.append("images", file, file.name);
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  const answer = await ask(path, { body, signal, onBusy: (seconds, reason) => tell(`Waiting ${seconds} s: ${reason}`) });
  return (await answer.json()).results[0];
}

function explain(card) {
  const load = async (signal, tell) => (card.reasons ??= await score(card, card.checkpoint, true, signal, tell));
  openReasons({ name: card.file.name, url: card.url, prompt: card.prompt }, load);
}

function rescoreThose(chosen) {
  for (const card of chosen) rescore(card);
}

// What a card shows

function showPrompt(card) {
  $("textarea", card.node).value = card.prompt ?? "";
  $(".place", card.node).textContent = placeOf(card);
}

function placeOf({ prompt, inside }) {
  if (prompt === null) return "";
  if (prompt === $("#for-all").value.trim() && prompt) return "the one for all";
  if (inside && prompt === (inside.prompt ?? "")) return inside.prompt === null ? "none in the file" : `from ${inside.place}`;
  return prompt ? "yours" : "none";
}

/** A card's scores, or the state that it is in. */
function showCard(card, state = "") {
  const { node, entry } = card;
  const failure = card.problem || (entry && !isScored(card) ? entry.status.replace(/^error: /, "") : "");
  $(".state", node).textContent = state || failure;
  $(".state", node).classList.toggle("problem", !state && failure !== "" && failure !== CANCELLED);
  node.classList.toggle("busy", state !== "");
  const scores = isScored(card) ? checkpoint.dimensions.map((dimension) => makeScore(dimension, entry)) : [];
  $(".scores", node).replaceChildren(...scores);
  $(".notes", node).replaceChildren(...notesOn(card).map((note) => make("li", note)));
  $(".why", node).hidden = !isScored(card) || !checkpoint.explains;
  if (!isScored(card)) $(".rank", node).hidden = true;
}

function isScored({ entry }) {
  return entry !== null && Object.keys(entry.scores).length > 0;
}

function notesOn(card) {
  if (!isScored(card)) return [];
  const { prompt, prompt_read: read, status, labels } = card.entry;
  const remarks = status.replace(/^ok(: )?/, "").split("; ").filter(Boolean);
  if (read && read !== prompt) remarks.unshift(`prompt read: ${read}`);
  return [...Object.entries(labels).map(([name, word]) => `${name}: ${word}`), ...remarks];
}

/** A dimension's name, level word, number, and a bar on the scale; the bar stays within it, the number may not. */
function makeScore(dimension, { scores, levels }) {
  const node = $("#score-template").content.firstElementChild.cloneNode(true);
  const [low, high] = checkpoint.range;
  const value = scores[dimension];
  $(".dimension", node).textContent = dimension;
  if (value === undefined) {
    $(".level", node).textContent = checkpoint.needs_prompt.includes(dimension) ? "needs a prompt" : "not scored";
    $(".meter", node).remove();
    $(".ticks", node).remove();
    return node;
  }
  const inside = Math.min(Math.max(value, low), high);
  const meter = $(".meter", node);
  $(".level", node).textContent = levels[dimension];
  $(".number", node).textContent = value.toFixed(2);
  meter.setAttribute("aria-label", dimension);
  meter.setAttribute("aria-valuemin", low);
  meter.setAttribute("aria-valuemax", high);
  meter.setAttribute("aria-valuenow", inside);
  meter.setAttribute("aria-valuetext", `${value.toFixed(2)} of ${high}, ${levels[dimension]}`);
  $(".fill", meter).style.width = `${(100 * (inside - low)) / (high - low)}%`;
  $(".ticks", node).replaceChildren(...checkpoint.levels[dimension].map((word) => makeTick(word, levels[dimension])));
  return node;
}

function makeTick(word, own) {
  const tick = make("li", "", { title: word });
  tick.append(make("span", word));
  tick.classList.toggle("own", word === own);
  return tick;
}

// The list: progress, order, export

/** Show how far the scoring is. */
function showProgress() {
  const isOver = cards.every((card) => card.abort === null);
  const scored = cards.filter(isScored).length;
  const failed = cards.filter((card) => card.abort === null && !isScored(card) && card.problem !== CANCELLED).length;
  const text = `${scored} of ${cards.length} scored${failed ? `, ${failed} failed` : ""}`;
  $("#progress-text").textContent = text;
  $("#progress").max = cards.length || 1;
  $("#progress").value = scored + failed;
  $("#progress").hidden = isOver;
  $("#cancel").hidden = isOver;
  $("#rest").hidden = !isOver || !cards.some((card) => card.problem);
  say(text, isOver);
}

let lastSaid = 0;

/** Announce a text to screen readers, but not every step of many. */
function say(text, isLast) {
  if (!isLast && Date.now() - lastSaid < QUIET) return;
  lastSaid = Date.now();
  $("#said").textContent = text;
}

/** After a score: show progress, and the order anew once nothing is at work, so that cards do not jump meanwhile. */
function settle() {
  showTools();
  showProgress();
  if (cards.every((card) => card.abort === null)) arrange();
}

function showTools() {
  document.body.classList.toggle("filled", cards.length > 0);
  $("#results").hidden = cards.length === 0;
  $("#sorting").hidden = cards.length < 2;
  $(".for-all").hidden = cards.length < 2 && !$("#for-all").value;
}

/** The cards, the best first by the chosen dimension. */
function ordered() {
  const by = $("#sort").value;
  const worth = (card) => card.entry?.scores[by] ?? UNSCORED;
  return by ? [...cards].sort((a, b) => worth(b) - worth(a)) : cards;
}

function arrange() {
  const by = $("#sort").value;
  const list = $("#cards");
  const sorted = ordered();
  sorted.forEach((card, i) => {
    const rank = $(".rank", card.node);
    rank.hidden = card.entry?.scores[by] === undefined;
    rank.replaceChildren(make("span", "rank ", { class: "unseen" }), String(i + 1), make("span", ` by ${by}`, { class: "unseen" }));
  });
  if (sorted.every((card, i) => list.children[i] === card.node)) return;
  const focused = document.activeElement;
  list.append(...sorted.map((card) => card.node));
  focused.focus(); // moving an element takes the focus from it
}

function exportTable() {
  const rows = ordered().map(({ file, prompt, entry, problem, checkpoint: by }) => {
    const read = entry?.prompt_read ?? "";
    const status = entry?.status ?? `error: ${problem || "not scored yet"}`;
    return { image: file.name, prompt: prompt ?? "", prompt_read: read, ...entry?.scores, status, checkpoint: by ?? "" };
  });
  const lines = [COLUMNS, ...rows.map((row) => COLUMNS.map((column) => row[column] ?? ""))];
  const link = make("a", "", { download: "scores.csv" });
  const text = lines.map((line) => `${line.map(asCell).join(",")}\n`).join("");
  link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" })); // spreadsheets know UTF-8 by this mark
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser may still be saving it
}

/** A CSV's cell: quoted where necessary, and with an apostrophe before a text that a spreadsheet would compute. */
function asCell(value) {
  if (typeof value === "number") return String(value);
  const shown = value.replace(/[\0-\x09\x0b-\x1f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0))); // as ␉ for a tab
  const safe = /^'*[=+\-@＝＋－＠]/.test(shown) ? `'${shown}` : shown;
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// What the server says of itself

async function begin() {
  info = await (await ask("info")).json();
  const names = info.checkpoints.map(({ name }) => name);
  $("#checkpoint").replaceChildren(...names.map((name) => new Option(name)));
  $("#checkpoint").hidden = names.length < 2;
  $("#scored-by").hidden = names.length > 1;
  $("#limits").textContent = `Up to ${inWords(info.limits.bytes)} each.`;
  $("#version").textContent = `MGS ${info.version}`;
  choose(info.checkpoints[0]);
}

function choose(chosen) {
  checkpoint = chosen;
  const { name, dimensions, levels, range } = chosen;
  $("#scored-by").textContent = name;
  const sort = $("#sort").value;
  $("#sort").replaceChildren(new Option("as added", ""), ...dimensions.map((dimension) => new Option(`by ${dimension}`, dimension)));
  if (dimensions.includes(sort)) $("#sort").value = sort;
  fillLevels(dimensions, levels, range);
}

function fillLevels(dimensions, levels, [low, high]) {
  const steps = levels[dimensions[0]].map((_, i, words) => low + (i * (high - low)) / (words.length - 1));
  const head = make("tr");
  head.append(make("td"), ...steps.map((step) => make("th", step, { scope: "col" })));
  const rows = dimensions.map((dimension) => {
    const row = make("tr");
    row.append(make("th", dimension, { scope: "row" }), ...levels[dimension].map((word) => make("td", word)));
    return row;
  });
  $("#levels").replaceChildren(head, ...rows);
}

function inWords(bytes) {
  return `${Math.floor(bytes / 2 ** 20)} MB`;
}

async function showExamples() {
  const { examples } = await (await ask("examples")).json();
  $("#examples").hidden = examples.length === 0;
  await Promise.all(examples.map(showExample));
}

/** An example is fetched rather than linked, since an `<img>` sends no token. */
async function showExample({ name, prompt, url }) {
  const button = make("button", "", { type: "button", "aria-label": `Example: ${prompt}`, title: prompt });
  const item = make("li");
  item.append(button);
  $("#examples ul").append(item);
  const file = new File([await (await ask(url.replace(/^\//, ""))).blob()], name, { type: "image/jpeg" });
  const image = make("img", "", { alt: "", src: URL.createObjectURL(file) });
  button.append(image);
  button.addEventListener("click", () => addFiles([file], { prompt, place: "the example", isGiven: true }));
}

// Where images come in

const input = $("#files");
$("#choose").addEventListener("click", () => input.click());
input.addEventListener("change", () => {
  addFiles(input.files);
  input.value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  addFiles(event.clipboardData.files);
});
document.addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return; // a text may be dragged into a prompt
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging"); // it left the window
});
document.addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  document.body.classList.remove("dragging");
  addFiles(event.dataTransfer.files);
});

$("#for-all").addEventListener("change", () => {
  const text = $("#for-all").value.trim() || null;
  for (const card of [...cards]) setPrompt(card, text);
});
$("#sort").addEventListener("change", arrange);
$("#checkpoint").addEventListener("change", (event) => {
  choose(info.checkpoints[event.target.selectedIndex]);
  rescoreThose(cards);
});
$("#cancel").addEventListener("click", () => {
  for (const card of cards.filter(({ abort }) => abort)) {
    giveUp(card);
    card.problem = CANCELLED;
    showCard(card);
  }
  settle();
  $("#rest").focus(); // it takes the place of this button
});
$("#rest").addEventListener("click", () => {
  rescoreThose(cards.filter((card) => card.problem));
  $("#cancel").focus();
});
$("#export").addEventListener("click", exportTable);
$("#clear").addEventListener("click", () => {
  for (const card of [...cards]) drop(card);
  settle();
  $("#choose").focus();
});

const ready = begin();
ready.then(showExamples).catch((error) => {
  $("#problem").textContent = `${error.message} Reload the page to try again.`;
  $("#problem").hidden = false;
});
