// What is written over a slice: sides of the patient, and a bar of so many centimetres.

import { t } from "./words.js";

const BARS_MM = [100, 50, 20, 10, 5, 2];

// Right and left of the patient, front and back where the file tells them, and a bar of so many centimetres.
export function paintMarks(c, pane, { view, result }, dots) {
  const known = result.opaque ? result.opaque.sides === "file" : Boolean(view.spacing);
  const gap = 16 * dots;
  const [x, y] = [pane.x + pane.w / 2, pane.y + pane.h / 2];
  c.font = `600 ${15 * dots}px system-ui, sans-serif`;
  c.textAlign = "center";
  c.textBaseline = "middle";
  const text = (words, at, below) => {
    c.lineWidth = 3 * dots;
    c.strokeStyle = "#000";
    c.strokeText(words, at, below);
    c.fillStyle = "#fff";
    c.fillText(words, at, below);
  };
  const [right, left] = [t("R"), t("L")];
  text(known ? right : `${right}?`, pane.x + gap, y);
  text(known ? left : `${left}?`, pane.x + pane.w - gap, y);
  if (!view.spacing) return;
  if (known) {
    text(t("A"), x, pane.y + gap);
    text(t("P"), x, pane.y + pane.h - gap);
  }
  const mm = pane.sx / view.spacing[1];
  const length = BARS_MM.find((bar) => bar * mm < 0.3 * pane.w);
  if (!length) return;
  const [start, low] = [pane.x + gap, pane.y + pane.h - gap];
  c.fillRect(start, low, length * mm, 2 * dots);
  for (const end of [start, start + length * mm]) c.fillRect(end - dots, low - 5 * dots, 2 * dots, 12 * dots);
  c.textAlign = "left";
  text(length >= 10 ? `${length / 10} cm` : `${length} mm`, start, low - 14 * dots);
}
