// The worklist: one row a scan, sortable, saved as CSV; what waits or failed can be sent again while the page is open.

import { byId, made, ofLung, percent, save, t } from "./words.js";

const COLUMNS = ["name", "answer", "probability", "opaque", "threshold", "slices", "seen"];
const COLUMNS_OF_CSV = ["input", "status", "code", "detail", "probability", "label", "threshold", "opaque_share", "opaque_left", "opaque_right", "ct_class", "differential", "slices", "model", "sha256", "warnings", "seen"];
const HIGHEST_FIRST = ["probability", "opaque", "slices"];

export class Worklist {
  constructor(choose) {
    this.rows = [];
    this.choose = choose;
    this.chosen = null;
    this.sorted = { key: null, down: false };
    for (const button of byId("rows").querySelectorAll("thead button")) button.addEventListener("click", () => this.sort(button.dataset.key));
    byId("csv").addEventListener("click", () => save("groundglass-results.csv", "text/csv", this.csv()));
    byId("previous").addEventListener("click", () => this.walk(-1));
    byId("next").addEventListener("click", () => this.walk(1));
  }

  add(rows) {
    this.rows.push(...rows);
    this.order();
  }

  // Put rows in the place of others; the one that is open stays open.
  replace(old, rows) {
    const at = this.rows.indexOf(old[0]);
    this.rows = this.rows.filter((row) => !old.includes(row));
    this.rows.splice(at < 0 ? this.rows.length : at, 0, ...rows);
    this.order();
  }

  clear() {
    this.rows = [];
    this.chosen = null;
    this.draw();
  }

  // Rows that have no result: they wait, or what was to judge them failed.
  get unfinished() {
    return this.rows.filter((row) => row.id === null && row.job);
  }

  sort(key) {
    this.sorted = { key, down: this.sorted.key === key ? !this.sorted.down : HIGHEST_FIRST.includes(key) };
    for (const button of byId("rows").querySelectorAll("thead button")) {
      const state = button.dataset.key !== key ? "none" : this.sorted.down ? "descending" : "ascending";
      button.parentElement.setAttribute("aria-sort", state);
    }
    this.order();
  }

  order() {
    const { key, down } = this.sorted;
    const sign = down ? -1 : 1;
    // what has no number stands at the end whichever way
    if (key) {
      this.rows.sort((a, b) => {
        const [x, y] = [a[key], b[key]];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
      });
    }
    this.draw();
  }

  // One row alone is no list, unless it is all that is left to do.
  draw(idle = false) {
    byId("list").hidden = byId("to-list").hidden = this.rows.length < 2 && !(idle && this.unfinished.length);
    byId("rows").tBodies[0].replaceChildren(
      ...this.rows.map((row) => {
        const line = made("tr", { className: row === this.chosen ? "chosen" : "" });
        line.append(...(row.result && row.probability === null ? this.reason(row) : COLUMNS.map((key) => this.cell(row, key))));
        return line;
      }),
    );
    const done = this.rows.filter((row) => row.kind !== "waiting").length;
    byId("to-list").textContent = `${t("Worklist")} (${this.rows.length})`;
    byId("list-state").textContent = t("{done} of {total} done, {seen} looked at", { done, total: this.rows.length, seen: this.rows.filter((row) => row.seen).length });
    this.place();
  }

  cell(row, key) {
    const value = row[key];
    if (key === "name") {
      const button = made("button", { type: "button", textContent: value, disabled: row.kind === "waiting" });
      button.addEventListener("click", () => this.take(row));
      return made("th", { scope: "row" }, button);
    }
    if (key === "answer") return made("td", { className: row.kind, textContent: value });
    const words = { seen: (seen) => (seen ? t("yes") : ""), slices: String, opaque: (share) => `${ofLung(share)}, ${row.result.ct_class}` }[key] || percent;
    return made("td", { className: "number", textContent: value === null ? "" : words(value) });
  }

  // A row without numbers: why there are none, in their place.
  reason(row) {
    const answer = this.cell(row, "answer");
    answer.colSpan = COLUMNS.length - 2;
    answer.append(made("span", { className: "small pale why", textContent: row.scan.words.caution }));
    return [this.cell(row, "name"), answer, this.cell(row, "seen")];
  }

  take(row) {
    this.chosen = row;
    row.seen = 1;
    this.draw();
    this.choose(row);
  }

  // The next or the last row in the order of the list that has something to show.
  walk(step) {
    const rows = this.rows.filter((row) => row.kind !== "waiting");
    const at = rows.indexOf(this.chosen) + step;
    if (rows[at]) this.take(rows[at]);
  }

  place() {
    const rows = this.rows.filter((row) => row.kind !== "waiting");
    const at = rows.indexOf(this.chosen);
    byId("walk").hidden = rows.length < 2 || at < 0;
    byId("walk-place").textContent = t("{n} of {total}", { n: at + 1, total: rows.length });
    byId("previous").disabled = at <= 0;
    byId("next").disabled = at >= rows.length - 1;
  }

  csv() {
    const lines = this.rows.filter((row) => row.result).map(({ name, result, seen }) => [
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
      seen ? "yes" : "no",
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
