// The curve along the scan, from feet to head: share of opaque lung as an area, probability as a line, the threshold.

import { byId } from "./words.js";

const NS = "http://www.w3.org/2000/svg";

export class Chart {
  // `go(index)` takes a slice; `look(index)` is told which one is under the cursor, or nothing.
  constructor(go, look) {
    this.svg = byId("chart");
    const at = (event) => {
      const box = this.svg.getBoundingClientRect();
      return Math.max(0, Math.min(this.slices - 1, Math.floor(((event.clientX - box.left) / box.width) * this.slices)));
    };
    this.svg.addEventListener("click", (event) => go(at(event)));
    this.svg.addEventListener("pointermove", (event) => {
      this.place(".under", at(event));
      if (event.buttons) go(at(event));
      else look(at(event));
    });
    this.svg.addEventListener("pointerleave", () => {
      this.place(".under", -10);
      look();
    });
  }

  draw(slices, threshold, chance, opaque) {
    this.slices = slices;
    this.svg.setAttribute("class", "chart");
    this.svg.setAttribute("viewBox", `0 0 ${slices} 100`);
    const add = (name, values) => {
      const element = document.createElementNS(NS, name);
      for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
      this.svg.append(element);
    };
    this.svg.replaceChildren();
    for (const run of runs(opaque)) add("path", { class: "opaque", d: `M${run[0][0]} 100${run.map(([i, s]) => `L${i} ${100 - 100 * s}`).join("")}L${run.at(-1)[0]} 100Z` });
    for (const run of runs(chance)) add("path", { class: "chance", d: run.map(([i, p], n) => `${n ? "L" : "M"}${i} ${98 - 96 * p}`).join("") });
    const y = 98 - 96 * threshold;
    add("line", { class: "threshold", x1: 0, x2: slices, y1: y, y2: y });
    for (const name of ["under", "here"]) add("line", { class: name, x1: -10, x2: -10, y1: 0, y2: 100 });
  }

  mark(index) {
    this.place(".here", index);
  }

  place(name, index) {
    const line = this.svg.querySelector(name);
    for (const end of ["x1", "x2"]) if (line) line.setAttribute(end, index + 0.5);
  }
}

// Values by slice as runs of [middle of the slice, value]: one that was not judged between judged ones ends a run.
function runs(values) {
  const line = [...values].sort((a, b) => a[0] - b[0]);
  const step = Math.min(...line.slice(1).map(([i], n) => i - line[n][0]), line.length > 1 ? Infinity : 1);
  const found = [];
  for (const [n, [i, value]] of line.entries()) {
    if (!n || i !== line[n - 1][0] + step) found.push([]);
    found.at(-1).push([i + 0.5, value]);
  }
  return found.map((run) => (run.length > 1 ? run : [[run[0][0] - step / 2, run[0][1]], [run[0][0] + step / 2, run[0][1]]]));
}
