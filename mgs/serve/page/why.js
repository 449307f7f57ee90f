/* The dialog that shows why an image has its scores. */

const $ = (selector) => document.querySelector(selector);
const LOWEST = 3; // patches to mark
const LEVELS = ["quality", "authenticity"]; // of which each patch has one of its own
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // from less to more alike, also without colour vision
const LOWERS = [230, 97, 1], RAISES = [94, 60, 153]; // a score
const COARSE = 64; // pixels of the longer side, where a map is made of patches

/** An element with a text, which is never read as markup. */
export function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Open the dialog for an image, and fill it with the entry that `load(signal, tell)` gets from the server. */
export async function openReasons({ name, url, prompt }, load) {
  const dialog = $("#why");
  const closed = new AbortController();
  dialog.addEventListener("close", () => closed.abort(), { once: true });
  $("#why-image").textContent = prompt ? `${name}: ${prompt}` : `${name}, without a prompt`;
  $("#why-body").hidden = true;
  $("#why-state").textContent = "Looking for the reasons…";
  dialog.showModal();
  try {
    const entry = await load(closed.signal, (state) => ($("#why-state").textContent = state));
    closed.signal.throwIfAborted();
    if (!entry.explanation) throw new Error(entry.status);
    $("#why-state").textContent = "";
    $("#why-body").hidden = false;
    fill(entry, url);
  } catch (error) {
    if (!closed.signal.aborted) $("#why-state").textContent = error.message;
  }
}

function fill({ explanation, scores }, url) {
  // A checkpoint scores what it was trained on; overall is made of all three.
  const isTold = (dimension) => [scores[dimension], scores.overall].some((score) => score !== undefined);
  const image = $("#stage img");
  image.hidden = false;
  image.onerror = () => (image.hidden = true); // a kind of image that the browser cannot show
  image.src = url;
  $("#stage").style.setProperty("--ratio", explanation.size[1] / explanation.size[0]);
  fillFragments(explanation, scores, isTold("correspondence"));
  fillJoint(explanation, LEVELS.filter(isTold));
  for (const kind of LEVELS) {
    const button = $(`#show-${kind}`);
    button.hidden = !isTold(kind);
    button.onclick = () => showPatches(button, kind, explanation);
  }
  $("#show-whole").hidden = !explanation.maps?.whole || !isTold("correspondence");
  $("#show-whole").onclick = () => showWhole(explanation);
  clearStage(); // of what lay over another image
  document.querySelector(".switch button:not([hidden])")?.click();
}

// The image and what lies over it

function clearStage() {
  press(null);
  label([], [], 0, [], "");
  $("#stage-caption").textContent = "";
  $(".ramp").hidden = true;
  lay(null);
}

/** What raises and lowers a level; and what each patch would be scored alone, the three lowest marked. */
function showPatches(button, kind, { boxes, maps, [`patch_${kind}`]: values }) {
  press(button);
  const order = values.map((_, i) => i).sort((a, b) => values[a] - values[b]);
  label(boxes, values, 2, order.slice(0, LOWEST), "one of the lowest");
  const colours = maps ? " Purple places raise it in their surroundings, orange ones lower it." : "";
  $("#stage-caption").textContent =
    `The ${kind} if all of the image were like this part. Marked: the ${LOWEST} lowest, which pull it down.${colours}`;
  $(".ramp").hidden = true;
  lay(maps && readMap(maps[kind]), signedColour);
}

/** Where the image is like the whole prompt. */
function showWhole({ maps: { whole } }) {
  press($("#show-whole"));
  label([], [], 3, [], "");
  $("#stage-caption").textContent = "Cosine of each place with the whole prompt.";
  showRange(whole.low, whole.high);
  lay(readMap(whole), rampColour);
}

/** Where the image is like a fragment; the patches that it was scored on are marked. */
function showFragment(button, fragment, { boxes, size, fragments, maps }) {
  press(button);
  label(boxes, fragment.patches, 3, fragment.counted, "counted");
  const map = maps?.fragments[fragments.indexOf(fragment)];
  $("#stage-caption").textContent =
    `Cosine of each part with “${fragment.text}”. Marked: the ${fragment.counted.length} parts that counted.` +
    (map ? " Colours: the cosine of each place alone." : "");
  const [low, high] = map ? [map.low, map.high] : [Math.min(...fragment.patches), Math.max(...fragment.patches)];
  showRange(low, high);
  lay(map ? readMap(map) : spreadPatches(fragment.patches, boxes, size), rampColour);
}

function showRange(low, high) {
  const ends = $(".ramp").querySelectorAll("span");
  ends[0].textContent = low.toFixed(3);
  ends[1].textContent = high.toFixed(3);
  $(".ramp").hidden = false;
}

/** Show one of the buttons, which choose what lies over the image, as pressed. */
function press(button) {
  for (const other of document.querySelectorAll("#why [aria-pressed]")) other.setAttribute("aria-pressed", other === button);
}

/** A number for each patch. Patches overlap, so their rows and columns share the image evenly. */
function label(boxes, values, digits, marked, meaning) {
  const [rows, columns] = [0, 1].map((axis) => distinct(boxes.map((box) => box[axis])));
  const labels = boxes.map(([top, left], i) => {
    const [row, column] = [rows.indexOf(top) + 1, columns.indexOf(left) + 1];
    const item = make("li");
    item.style.gridArea = `${row} / ${column}`;
    const number = make("span", values[i].toFixed(digits));
    number.prepend(make("span", `row ${row}, column ${column}: `, { class: "unseen" }));
    if (marked.includes(i)) {
      number.className = "marked";
      number.append(make("span", `, ${meaning}`, { class: "unseen" }));
    }
    item.append(number);
    return item;
  });
  const list = $("#stage .patches");
  list.style.gridTemplate = `repeat(${rows.length}, 1fr) / repeat(${columns.length}, 1fr)`;
  list.replaceChildren(...labels);
}

function distinct(numbers) {
  return [...new Set(numbers)].sort((a, b) => a - b);
}

let latest; // what is to lie over the image; reading a map takes a moment

/** Lay a map, or a promise of one, over the image, each of its shares, 0-1, in a colour; without one, take away what lies there. */
async function lay(map, colour) {
  latest = map;
  const { width, height, shares } = (await map) ?? { width: 1, height: 1, shares: [] };
  if (latest !== map) return;
  $("#stage").classList.toggle("heated", shares.length > 0);
  const canvas = $("#stage .heat");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  shares.forEach((share, i) => pixels.data.set(colour(share), 4 * i));
  context.putImageData(pixels, 0, 0);
}

/** The shares of a map that the server sent as a grey picture. */
async function readMap({ png }) {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  const picture = await createImageBitmap(new Blob([bytes], { type: "image/png" }), { colorSpaceConversion: "none" });
  const { width, height } = picture;
  const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  return { width, height, shares: Array.from({ length: width * height }, (_, i) => data[4 * i] / 255) };
}

/** A map where there is none: each place has the mean of the patches that show it. */
function spreadPatches(values, boxes, [tall, wide]) {
  const scale = COARSE / Math.max(tall, wide);
  const [height, width] = [tall, wide].map((side) => Math.max(1, Math.round(side * scale)));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const shares = Array.from({ length: width * height }, (_, i) => {
    const [y, x] = [(Math.floor(i / width) + 0.5) / scale, ((i % width) + 0.5) / scale];
    const seen = values.filter((_, k) => {
      const [top, left, side] = boxes[k];
      return top <= y && y < top + side && left <= x && x < left + side;
    });
    const mean = seen.reduce((sum, value) => sum + value, 0) / (seen.length || 1);
    return seen.length && high > low ? (mean - low) / (high - low) : 0;
  });
  return { width, height, shares };
}

/** From less to more alike, as red, green, blue and opacity. */
function rampColour(share) {
  const step = Math.min(Math.floor(share * (RAMP.length - 1)), RAMP.length - 2);
  const part = share * (RAMP.length - 1) - step; // 0-1 of the way to the next colour
  return [...RAMP[step].map((from, i) => from + part * (RAMP[step + 1][i] - from)), 140];
}

/** Orange below the middle, purple above it, and the stronger the farther from it. */
function signedColour(share) {
  return [...(share < 0.5 ? LOWERS : RAISES), 230 * Math.abs(2 * share - 1) ** 0.75];
}

// The prompt's fragments, and the joint grid

function fillFragments(explanation, scores, isTold) {
  $("#why-correspondence").hidden = !explanation.fragments.length || !isTold;
  const items = explanation.fragments.map((fragment) => {
    const button = make("button", fragment.text, { type: "button", "aria-pressed": "false" });
    button.append(make("small", `weight ${fragment.weight.toFixed(2)}, score ${fragment.score.toFixed(2)}`));
    button.onclick = () => showFragment(button, fragment, explanation);
    const item = make("li");
    item.append(button);
    return item;
  });
  $("#fragments").replaceChildren(...items);
  $("#sum").textContent = [writeCorrespondence(explanation), ...writeOverall(explanation, scores)].join("\n");
}

/** Correspondence as the sum that makes it. */
function writeCorrespondence({ correspondence, whole, whole_share: share, fragments }) {
  const total = `correspondence ${correspondence.toFixed(2)} = `;
  if (share === 1) return `${total}${whole.toFixed(2)}, the whole prompt against the whole image`;
  const parts = fragments.reduce((sum, fragment) => sum + fragment.weight * fragment.score, 0);
  const terms = fragments.map((fragment) => `${fragment.weight.toFixed(2)} × ${fragment.score.toFixed(2)}`);
  return (
    `${total}${share.toFixed(2)} × ${whole.toFixed(2)} (the whole prompt) + ${(1 - share).toFixed(2)} × ${parts.toFixed(2)} (the fragments)\n` +
    `fragments ${parts.toFixed(2)} = ${terms.join(" + ")}`
  );
}

/** Overall as the sum that makes it; nothing where it is not scored. */
function writeOverall({ shares, ...parts }, { overall }) {
  if (overall === undefined) return [];
  const terms = Object.entries(shares).map(([part, share]) => `${share.toFixed(2)} × ${part} ${parts[part].toFixed(2)}`);
  return [`overall ${overall.toFixed(2)} = ${terms.join(" + ")}`];
}

/** The probabilities of the 25 pairs of words. */
function fillJoint({ joint, quality_words: rows, authenticity_words: columns, ...levels }, told) {
  $("#why-joint").hidden = !joint || !told.length;
  if (!joint) return;
  const sums = { quality: "rows", authenticity: "columns" };
  $("#joint-sum").textContent = told
    .map((kind) => `The expected level of the ${sums[kind]} is ${kind}, ${levels[kind].toFixed(2)}.`)
    .join(" ");
  const most = Math.max(0.2, ...joint.flat());
  const head = make("tr");
  head.append(make("td"), ...columns.map((word) => make("th", word, { scope: "col" })));
  const lines = joint.map((row, i) => {
    const line = make("tr");
    line.append(make("th", rows[i], { scope: "row" }));
    for (const probability of row) {
      const cell = make("td", probability.toFixed(2));
      cell.style.setProperty("--share", probability / most);
      line.append(cell);
    }
    return line;
  });
  $("#joint").replaceChildren(head, ...lines);
}

$("#why-close").addEventListener("click", () => $("#why").close());
