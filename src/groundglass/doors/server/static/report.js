// One page to print, or to save as PDF from the browser: pictures, numbers, model, date, the user's own file name.

import { byId, language, made, ofLung, percent, t } from "./words.js";

const KEY_SLICES = 4;

export class Report {
  // `chosen()` is the row that is shown.
  constructor(viewer, chosen) {
    Object.assign(this, { viewer, chosen, pictures: [] });
    window.addEventListener("beforeprint", () => this.put());
    window.addEventListener("afterprint", () => document.documentElement.classList.remove("printing"));
  }

  async print() {
    await this.draw();
    window.print();
  }

  // The pictures take a moment: they are drawn before the printer asks.
  async draw() {
    const { viewer } = this;
    const { scan, index } = viewer;
    if (!scan) return;
    const key = scan.view.slices > 1 ? scan.view.ranked.slice(0, KEY_SLICES) : [];
    this.pictures = [await viewer.picture(index, false), await viewer.picture(index), ...(await Promise.all(key.map((i) => viewer.picture(i))))];
    this.of = { scan, index, key };
  }

  // By the menu of the browser too, with the pictures that were drawn last, or the one on the screen.
  put() {
    const row = this.chosen();
    if (byId("result").hidden || !row || row.result.status !== "ok") return;
    document.documentElement.classList.add("printing");
    const drawn = this.of && this.of.scan === row.scan;
    byId("report").replaceChildren(...this.parts(row, drawn ? this.of : { index: this.viewer.index, key: [] }, drawn ? this.pictures : [this.screen()]));
  }

  screen() {
    const { canvas } = this.viewer;
    const copy = made("canvas", { width: canvas.width, height: canvas.height });
    copy.getContext("2d").drawImage(canvas, 0, 0);
    return copy;
  }

  parts(row, of, pictures) {
    const { result, words, view } = row.scan;
    const heading = (text) => made("h3", { textContent: text });
    const line = (text) => made("p", { textContent: text });
    const figure = (picture, text) => made("figure", {}, picture, made("figcaption", { textContent: text }));
    const slice = (index) => t("Slice {n} of {total}", { n: index + 1, total: view.slices });
    const chance = new Map(result.slices.map((s) => [s.index, s.probability]));
    const captions = [t("{slice}, plain", { slice: slice(of.index) }), t("{slice}, with what was found", { slice: slice(of.index) })];
    const main = made("div", { className: "two" }, ...pictures.slice(0, 2).map((picture, n) => figure(picture, captions[pictures.length > 1 ? n : 1])));
    const rest = of.key.map((index, n) => figure(pictures[n + 2], `${slice(index)}: ${percent(chance.get(index))}`));
    return [
      made("h1", { textContent: `Groundglass: ${row.name}` }),
      made("h2", { textContent: words.answer }),
      ...[words.caution, words.meaning].filter(Boolean).map(line),
      main,
      ...(rest.length ? [made("div", { className: "row" }, ...rest), byId("chart").cloneNode(true), line(t("Curve from feet to head: area, share of lung that looks opaque; line, probability; dashed, threshold."))] : []),
      line(this.marks(view, result)),
      ...(result.opaque ? [heading(t("Lung that looks opaque")), this.shares(result)] : []),
      ...[words.second, words.second_worth, words.certainty, words.worth].filter(Boolean).map(line),
      ...(words.warnings.length ? [heading(t("Please note")), made("ul", {}, ...words.warnings.map((text) => made("li", { textContent: text })))] : []),
      this.patient(),
      line(`${t("Model")} ${result.model.name}, SHA-256 ${result.model.sha256.slice(0, 12)}; Groundglass ${result.version}; ${new Date().toLocaleString(language)}`),
    ];
  }

  marks(view, result) {
    const known = !result.opaque || result.opaque.sides === "file";
    const side = known ? t("The patient's right is on the left of the picture.") : t("Right and left hold if the picture is shown as usual.");
    const { center, width } = this.viewer.level;
    const window = view.unit === "HU" ? ` ${t("Window")}: ${t("{center} / {width} HU", { center: Math.round(center), width: Math.round(width) })}.` : "";
    return `${side}${window} ${view.map ? t("Tinted and outlined: lung that looks opaque to the model; the green line is the lung field.") : t("Orange speaks for COVID-19 pneumonia, blue against it; the green line is the lung field.")}`;
  }

  shares({ opaque, ct_class: grade }) {
    const cells = [["right lung", opaque.right], ["left lung", opaque.left], ["both", opaque.total]].filter(([, share]) => share !== null);
    const words = cells.map(([name, share]) => `${t(name)} ${ofLung(share)}`).join("; ");
    return made("p", { textContent: `${words}; ${grade}` });
  }

  // Only what the user has asked to see.
  patient() {
    const shown = byId("patient-rows");
    return shown.children.length ? shown.cloneNode(true) : "";
  }
}
