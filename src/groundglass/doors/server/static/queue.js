// The table of results: one row a scan, sortable, saved as CSV. Every text goes in as text.

const byId = (id) => document.getElementById(id);
const percent = (p) => (p < 0.001 ? "< 0.1 %" : p > 0.999 ? "> 99.9 %" : `${(100 * p).toFixed(1)} %`);
export const ofLung = (share) => (share > 0 && share < 0.01 ? "less than 1 %" : `${(100 * share).toFixed(0)} %`);
const COLUMNS = ["name", "answer", "probability", "threshold", "opaque", "slices"];
const COLUMNS_OF_CSV = ["input", "status", "code", "detail", "probability", "label", "threshold", "opaque_share", "opaque_left", "opaque_right", "ct_class", "differential", "slices", "model", "sha256", "warnings"];

export class Queue {
  constructor(choose) {
    this.rows = [];
    this.choose = choose;
    this.sorted = { key: null, down: false };
    for (const button of byId("rows").querySelectorAll("thead button")) {
      button.addEventListener("click", () => this.sort(button.dataset.key));
    }
    byId("csv").addEventListener("click", () => save("groundglass-results.csv", "text/csv", this.csv()));
  }

  add(row) {
    this.rows.push(row);
    this.draw();
    return row;
  }

  clear() {
    this.rows = [];
    this.draw();
  }

  sort(key) {
    this.sorted = { key, down: this.sorted.key === key ? !this.sorted.down : key === "probability" };
    const sign = this.sorted.down ? -1 : 1;
    // what has no number stands at the end whichever way
    this.rows.sort((a, b) => {
      const [x, y] = [a[key], b[key]];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
    });
    for (const button of byId("rows").querySelectorAll("thead button")) {
      const state = button.dataset.key !== key ? "none" : this.sorted.down ? "descending" : "ascending";
      button.parentElement.setAttribute("aria-sort", state);
    }
    this.draw();
  }

  draw() {
    byId("queue").hidden = this.rows.length === 0;
    const body = byId("rows").tBodies[0];
    body.replaceChildren(
      ...this.rows.map((row) => {
        const line = document.createElement("tr");
        line.classList.toggle("chosen", row === this.chosen);
        for (const key of COLUMNS) line.append(this.cell(row, key));
        return line;
      }),
    );
  }

  cell(row, key) {
    const cell = document.createElement(key === "name" ? "th" : "td");
    const value = row[key];
    if (key === "name") {
      cell.scope = "row";
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = value;
      button.addEventListener("click", () => this.take(row));
      cell.append(button);
    } else if (key === "answer") {
      cell.className = row.kind;
      cell.textContent = value;
    } else {
      cell.className = "number";
      const words = { slices: String, opaque: (share) => `${ofLung(share)}, ${row.result.ct_class}` }[key] || percent;
      cell.textContent = value === null ? "" : words(value);
    }
    return cell;
  }

  take(row) {
    this.chosen = row;
    this.draw();
    this.choose(row);
  }

  csv() {
    const lines = this.rows.map(({ name, result }) => [
      name,
      result.status,
      result.code ?? "",
      result.detail,
      result.probability ?? "",
      result.label ?? "",
      result.threshold ?? "",
      ...["total", "left", "right"].map((side) => (result.opaque && result.opaque[side]) ?? ""),
      result.ct_class ?? "",
      (result.differential && result.differential.probability) ?? "",
      result.slices ? result.slices.length : "",
      result.model ? result.model.name : "",
      result.model ? result.model.sha256 : "",
      result.warnings.map((w) => w.code).join(" "),
    ]);
    return [COLUMNS_OF_CSV, ...lines].map((cells) => cells.map(quoted).join(",") + "\r\n").join("");
  }
}

// A spreadsheet takes a cell that begins so for a formula: an apostrophe makes it text.
function quoted(value) {
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function save(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
