"use strict";
// Opening what is packed in the file, and text that is shown as it is.

/** The JSON of a packed element: base64 of gzip. */
async function unpack(id) {
  const raw = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(raw, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const MOST_OPEN = 24; // chunks
const opened = new Map();

/** What one rollout has beside its cells in the table. */
async function openRollout(index, row) {
  const number = Math.floor(row / index.chunk);
  let found = opened.get(number);
  if (found === undefined) {
    found = unpack("chunk" + number);
    opened.set(number, found);
    if (opened.size > MOST_OPEN) opened.delete(opened.keys().next().value);
  }
  return (await found)[row % index.chunk];
}

// Controls, and what turns the direction of text or hides in it: shown by a sign.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|\u{e0000}|[\u{e0001}-\u{e007f}]/gu;

/** The text with a visible sign in the place of each character that hides or drives. */
function visible(text) {
  return text.replace(HIDDEN, (letter) => {
    const code = letter.codePointAt(0);
    return code < 0x20 ? String.fromCodePoint(0x2400 + code) : "\ufffd";
  });
}

/** An element with properties, and children: elements, or texts that stay texts. */
function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined) continue;
    element.append(child instanceof Node ? child : visible(String(child)));
  }
  return element;
}

function byId(id) {
  return document.getElementById(id);
}

/** Up to so many digits, and no more zeros than are needed. */
function short(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return String(value);
  return String(Number(value.toPrecision(digits)));
}

function signed(value) {
  return (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2);
}

const SIGNS = {
  pass: "✓", wrong: "✗", runtime: "!", timeout: "◷", memory: "▦", output: "≡",
  compile: "⌧", infra: "?", not_run: "·",
};

/** A verdict by sign, word and colour. */
function verdictOf(name, withWord = true) {
  const text = (SIGNS[name] ?? "?") + (withWord ? " " + name.replace("_", " ") : "");
  return make("span", { className: "verdict", "data-verdict": name }, text);
}

const tip = { element: null };

function showTip(text, event) {
  tip.element ??= byId("tip");
  tip.element.textContent = visible(text);
  tip.element.hidden = false;
  const box = tip.element.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
  const below = event.clientY + 16;
  const top = below + box.height > innerHeight ? event.clientY - box.height - 10 : below;
  tip.element.style.left = Math.max(4, left) + "px";
  tip.element.style.top = Math.max(4, top) + "px";
}

function hideTip() {
  if (tip.element) tip.element.hidden = true;
}
