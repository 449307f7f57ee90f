/* The dialog that shows why an image has its scores. */

const $ = (selector) => document.querySelector(selector);
const LOWEST = 3; // patches to mark
const PATCH_SCORES = ["quality", "authenticity"]; // of which each patch has one of its own
const RAMP = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"]; // from less to more alike, also without colour vision

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
  const image = $("#stage img");
  image.hidden = false;
  image.onerror = () => (image.hidden = true); // a kind of image that the browser cannot show
  image.src = url;
  $("#stage").style.setProperty("--ratio", explanation.size[1] / explanation.size[0]);
  fillFragments(explanation);
  fillJoint(explanation, scores);
  for (const kind of PATCH_SCORES) {
    const button = $(`#show-${kind}`);
    button.hidden = scores[kind] === undefined; // a checkpoint gives what it was trained on
    button.onclick = () => showPatches(button, kind, explanation);
  }
  PATCH_SCORES.map((kind) => $(`#show-${kind}`)).find((button) => !button.hidden)?.click();
}

// The image and what lies over it

/** What each patch would be scored alone; the three lowest, which pull the score down, are marked. */
function showPatches(button, kind, { boxes, [`patch_${kind}`]: values }) {
  press(button);
  const order = values.map((_, i) => i).sort((a, b) => values[a] - values[b]);
  label(boxes, values, 2, order.slice(0, LOWEST), "one of the lowest");
  $("#stage").classList.remove("heated");
  $("#stage-caption").textContent =
    `The ${kind} if all of the image were like this part. Marked: the ${LOWEST} lowest, which pull it down.`;
  $(".ramp").hidden = true;
}

/** Where the image is like a fragment; the patches that it was scored on are marked. */
function showFragment(button, fragment, { boxes, size }) {
  press(button);
  label(boxes, fragment.patches, 3, fragment.counted, "counted");
  drawHeat(fragment.patches, boxes, size);
  $("#stage").classList.add("heated");
  $("#stage-caption").textContent =
    `Cosine of each part with “${fragment.text}”. Marked: the ${fragment.counted.length} parts that counted.`;
  const [low, high] = $(".ramp").querySelectorAll("span");
  low.textContent = Math.min(...fragment.patches).toFixed(3);
  high.textContent = Math.max(...fragment.patches).toFixed(3);
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

/** Colour each piece of the image by the mean of the patches that show it. */
function drawHeat(values, boxes, [height, width]) {
  const edges = (axis, end) => distinct(boxes.flatMap((box) => [box[axis], Math.min(box[axis] + box[2], end)]));
  const [ys, xs] = [edges(0, height), edges(1, width)];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const pieces = [];
  for (let i = 0; i + 1 < ys.length; i++) {
    for (let j = 0; j + 1 < xs.length; j++) {
      const covers = ([top, left, side]) => top <= ys[i] && ys[i] < top + side && left <= xs[j] && xs[j] < left + side;
      const seen = values.filter((_, k) => covers(boxes[k]));
      if (!seen.length) continue;
      const mean = seen.reduce((sum, value) => sum + value, 0) / seen.length;
      const place = { x: xs[j], y: ys[i], width: xs[j + 1] - xs[j], height: ys[i + 1] - ys[i] };
      pieces.push(makePiece(place, high > low ? (mean - low) / (high - low) : 0.5));
    }
  }
  const heat = $("#stage .heat");
  heat.setAttribute("viewBox", `0 0 ${width} ${height}`);
  heat.replaceChildren(...pieces);
}

function makePiece(place, share) {
  const piece = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of Object.entries(place)) piece.setAttribute(name, value);
  const step = Math.min(Math.floor(share * (RAMP.length - 1)), RAMP.length - 2);
  const part = share * (RAMP.length - 1) - step; // 0-1 of the way to the next colour
  piece.style.fill = `color-mix(in srgb, ${RAMP[step + 1]} ${part * 100}%, ${RAMP[step]})`;
  return piece;
}

// The prompt's fragments, and the joint grid

function fillFragments(explanation) {
  $("#why-correspondence").hidden = !explanation.fragments.length;
  const items = explanation.fragments.map((fragment) => {
    const button = make("button", fragment.text, { type: "button", "aria-pressed": "false" });
    button.append(make("small", `weight ${fragment.weight.toFixed(2)}, score ${fragment.score.toFixed(2)}`));
    button.onclick = () => showFragment(button, fragment, explanation);
    const item = make("li");
    item.append(button);
    return item;
  });
  $("#fragments").replaceChildren(...items);
  $("#sum").textContent = writeSum(explanation);
}

/** Correspondence as the sum that makes it. */
function writeSum({ correspondence, whole, whole_share: share, fragments }) {
  const total = `correspondence ${correspondence.toFixed(2)} = `;
  if (share === 1) return `${total}${whole.toFixed(2)}, the whole prompt against the whole image`;
  const parts = fragments.reduce((sum, fragment) => sum + fragment.weight * fragment.score, 0);
  const terms = fragments.map((fragment) => `${fragment.weight.toFixed(2)} × ${fragment.score.toFixed(2)}`);
  return (
    `${total}${share.toFixed(2)} × ${whole.toFixed(2)} (the whole prompt) + ${(1 - share).toFixed(2)} × ${parts.toFixed(2)} (the fragments)\n` +
    `fragments ${parts.toFixed(2)} = ${terms.join(" + ")}`
  );
}

/** The probabilities of the 25 pairs of words. */
function fillJoint({ joint, quality_words: rows, authenticity_words: columns }, scores) {
  $("#why-joint").hidden = !joint;
  if (!joint) return;
  const sums = { quality: "rows", authenticity: "columns" };
  const told = PATCH_SCORES.filter((kind) => scores[kind] !== undefined);
  $("#joint-sum").textContent = told
    .map((kind) => `The expected level of the ${sums[kind]} is ${kind}, ${scores[kind].toFixed(2)}.`)
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
