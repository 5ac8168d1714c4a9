// Draws one slice at its own size: gray through a window, and over it the tint of opaque lung and the lung outline.

// The colours of report/picture.py: tint and its edge, lung outline.
const TINT = [236, 126, 28];
const EDGE = 0xff78e2ff;
const OUTLINE = 0xff96d66e;
// The tint covers as much of the slice as in the pictures to keep where its strength is 0.6.
const FULL = 2 / 3;

const table = new Uint32Array(65536);
let tableOf = "";

// Gray by value of a pixel: `low` is black, and every step is `scale` of 255.
function lookup(low, scale) {
  const key = `${low} ${scale}`;
  if (key === tableOf) return;
  for (let value = -32768; value < 32768; value++) {
    const gray = Math.max(0, Math.min(255, (value - low) * scale)) | 0;
    table[value & 0xffff] = 0xff000000 | (gray << 16) | (gray << 8) | gray;
  }
  tableOf = key;
}

let masksOf = null;
let masksLast = null;

// The lung field and what is opaque, one byte a pixel, from one bit a pixel; those of the last slice are kept.
function masks(part, size) {
  if (masksOf === part) return masksLast;
  const bytes = (from) => {
    const mask = new Uint8Array(size);
    for (let i = 0, at = from; i < size; i++, at++) mask[i] = (part.marks[at >> 3] >> (7 - (at & 7))) & 1;
    return mask;
  };
  masksOf = part;
  masksLast = { lungs: bytes(0), opaque: bytes(size), parts: [] };
  return masksLast;
}

function painted(canvas, view, paint) {
  const { width, height } = view;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(view.width, view.height);
  paint(new Uint32Array(image.data.buffer));
  context.putImageData(image, 0, 0);
}

// The slice in gray; `level` is a window in HU, which a plain picture does not have.
export function drawGray(canvas, part, view, level) {
  const hu = view.unit === "HU";
  lookup(hu ? level.center - level.width / 2 : 0, 255 / (hu ? level.width : 255));
  painted(canvas, view, (words) => {
    for (let i = 0; i < words.length; i++) words[i] = table[part.pixels[i] & 0xffff];
  });
}

// What was found, transparent elsewhere: `tint` from 0 (none) to 1, and whether the lungs are outlined.
export function drawFound(canvas, part, view, tint, outline) {
  const { width, height } = view;
  const { lungs, opaque } = masks(part, width * height);
  const color = ((Math.round(255 * FULL * tint) << 24) | (TINT[2] << 16) | (TINT[1] << 8) | TINT[0]) >>> 0;
  const rim = (mask, x, i, last) =>
    (x > 0 && !mask[i - 1]) || (x < width - 1 && !mask[i + 1]) || (i >= width && !mask[i - width]) || (i < last && !mask[i + width]);
  painted(canvas, view, (words) => {
    const last = width * (height - 1);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        if (!lungs[i]) continue;
        if (tint && opaque[i]) words[i] = rim(opaque, x, i, last) ? EDGE : color;
        if (outline && rim(lungs, x, i, last)) words[i] = OUTLINE;
      }
    }
  });
}

// From aerated to solid lung under the tint, as it is drawn in the picture.
export function drawLegend(canvas, tint) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    const gray = 30 + (212 * x) / canvas.width;
    const mixed = TINT.map((color) => Math.round(gray * (1 - FULL * tint) + color * FULL * tint));
    context.fillStyle = `rgb(${mixed})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

// The opaque part that holds a pixel: its pixels, and those of the lungs on this slice; null where there is none.
export function partAt(part, view, x, y) {
  const { width, height } = view;
  const { lungs, opaque, parts } = masks(part, width * height);
  const start = y * width + x;
  if (!opaque[start]) return null;
  const known = parts.find((one) => one.has[start]);
  if (known) return known;
  const found = { has: new Uint8Array(opaque.length), pixels: 0, lung: lungs.reduce((sum, bit) => sum + bit, 0) };
  const open = [start];
  found.has[start] = 1;
  while (open.length) {
    const i = open.pop();
    const column = i % width;
    found.pixels++;
    for (const near of [column > 0 ? i - 1 : -1, column < width - 1 ? i + 1 : -1, i - width, i + width]) {
      if (near >= 0 && near < opaque.length && opaque[near] && !found.has[near]) {
        found.has[near] = 1;
        open.push(near);
      }
    }
  }
  parts.push(found);
  return found;
}
