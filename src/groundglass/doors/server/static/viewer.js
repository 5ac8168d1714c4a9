// Shows the slices of one scan: window, zoom, comparison, marks, what lies under the pointer; keys, wheel and touch.

import { Chart } from "./chart.js";
import { drawFound, drawGray, drawLegend, partAt } from "./drawing.js";
import { paintMarks } from "./marks.js";
import { Slices } from "./slices.js";
import { byId, made, number, ofLung, percent, t, tell } from "./words.js";

const WIPE_NEAR = 14;

export class Viewer {
  // `get(path)` fetches from the service and gives a Response; `gone` is called where it has forgotten the scan.
  constructor(get, gone) {
    Object.assign(this, { get, gone, scan: null, slices: null, zoom: 1 });
    this.canvas = byId("canvas");
    this.context = this.canvas.getContext("2d");
    this.gray = document.createElement("canvas");
    this.veil = document.createElement("canvas");
    this.pointers = new Map();
    this.chart = new Chart((index) => this.go(index), (index) => this.say(index));
    this.listen();
  }

  // ---- one scan ------------------------------------------------------------------------------------------------------

  async show(path, scan) {
    const { view, result } = scan;
    Object.assign(this, { path, scan, shown: null, at: 0, level: { ...view.window }, index: view.ranked[0] });
    delete this.canvas.dataset.slice;
    this.chance = new Map(result.slices.map((s) => [s.index, s.probability]));
    this.opaque = new Map(result.slices.filter((s) => s.opaque_share !== null).map((s) => [s.index, s.opaque_share]));
    const series = view.slices > 1;
    for (const id of ["viewer", "controls"]) byId(id).hidden = false;
    byId("viewer").classList.toggle("series", series);
    for (const id of ["series-part", "highest-part", "curve-words"]) byId(id).hidden = !series;
    byId("shown-part").hidden = !view.map;
    byId("shown").value = view.map ? "opacity" : "activation";
    byId("window-part").hidden = view.unit !== "HU";
    byId("window").value = `${this.level.center} ${this.level.width}`;
    byId("slice").max = view.slices;
    this.open();
    this.sayFound();
    this.whole();
    this.chart.draw(view.slices, result.threshold, this.chance, this.opaque);
    await this.go(view.ranked[0]);
    if (this.scan === scan && series) this.drawHighest();
  }

  // Nothing of the scan is held yet, or no longer, as something else is to be shown.
  open() {
    const heated = byId("shown").value === "opacity" ? new Set() : new Set(this.chance.keys());
    this.slices = new Slices(this.get, this.path, this.scan.view, heated);
  }

  hide() {
    this.scan = this.slices = null;
    for (const id of ["viewer", "controls", "highest-part"]) byId(id).hidden = true;
  }

  async go(index) {
    const { slices } = this;
    const wanted = Math.max(0, Math.min(this.scan.view.slices - 1, index));
    const towards = wanted < this.index ? -1 : 1;
    this.index = wanted;
    byId("slice").value = wanted + 1;
    this.say();
    try {
      const part = await slices.part(wanted);
      if (this.slices !== slices) return; // another scan has come, or something else is to be shown
      if (this.nearer(wanted)) {
        Object.assign(this, { shown: part, at: wanted });
        this.repaint();
      }
      slices.ahead(this.index, towards);
    } catch (error) {
      if (this.slices !== slices) return;
      byId("place").textContent = error.message;
      if (error.gone) this.gone();
    }
  }

  // Whether a slice lies at least as near to the wanted one as that on the screen: one that comes late is shown on the way.
  nearer(index) {
    return !this.shown || Math.abs(index - this.index) <= Math.abs(this.at - this.index);
  }

  // ---- words ---------------------------------------------------------------------------------------------------------

  // Where we are; or of the slice under the cursor of the chart.
  say(index = this.index) {
    const { view } = this.scan;
    const [chance, share] = [this.chance.get(index), this.opaque.get(index)];
    const opaque = share === undefined ? "" : `, ${t("{share} of its lung looks opaque", { share: ofLung(share) })}`;
    const found = chance === undefined ? t("not judged") : percent(chance) + opaque;
    const mm = view.position ? `, z ${number(view.position[0] + index * view.position[1], 1)} mm` : "";
    const text = view.slices > 1 ? `${t("Slice {n} of {total}", { n: index + 1, total: view.slices })}: ${found}${mm}` : `${t("One slice")}: ${found}`;
    byId("place").textContent = text;
    if (index !== this.index) return;
    byId("legend-words").textContent =
      share === undefined ? t("This slice was not judged.") : t("Tinted: lung that looks opaque, from dark to bright lung; {share} of the lung on this slice.", { share: ofLung(share) });
    byId("slice").setAttribute("aria-valuetext", text);
    this.canvas.setAttribute("aria-label", `${text}. ${t("Slice with what was found")}.`);
    byId("window-words").textContent = t("{center} / {width} HU", { center: Math.round(this.level.center), width: Math.round(this.level.width) });
    this.chart.mark(index);
    for (const button of byId("highest").children) button.setAttribute("aria-current", String(Number(button.dataset.index) === index));
  }

  // What the overlay is called, and which legend goes with it.
  sayFound() {
    const opacity = byId("shown").value === "opacity";
    const { scale } = this.scan.view;
    byId("found-name").textContent = opacity ? t("Opaque lung") : t("What decided");
    byId("legend-opacity").hidden = !opacity;
    byId("legend-heat").hidden = opacity;
    byId("heat-low").textContent = `−${number(scale, 1)}`;
    byId("heat-high").textContent = `+${number(scale, 1)}`;
  }

  // HU and the share of the opaque part under the pointer.
  sayPointer(event) {
    const at = this.shown && this.place(event);
    if (!at) return tell("pointer", "");
    const { view } = this.scan;
    const value = this.shown.pixels[at.y * view.width + at.x];
    const words = [view.unit === "HU" ? `${String(value).replace("-", "−")} HU` : t("gray {value} of 255", { value })];
    const part = byId("shown").value === "opacity" ? partAt(this.shown, view, at.x, at.y) : null;
    if (part) {
      words.push(t("this opacity: about {share} of the lung on this slice", { share: ofLung(part.pixels / part.lung) }));
      if (view.spacing) words.push(`${number((part.pixels * view.spacing[0] * view.spacing[1]) / 100, 1)} cm²`);
    }
    return tell("pointer", words.join(" · "));
  }

  // ---- drawing -------------------------------------------------------------------------------------------------------

  strength() {
    return byId("found").checked ? Number(byId("strength").value) / 100 : 0;
  }

  repaint() {
    if (!this.shown) return;
    const opacity = byId("shown").value === "opacity";
    drawGray(this.gray, this.shown, this.scan.view, this.level);
    drawFound(this.veil, this.shown, this.scan.view, opacity ? this.strength() : 0, byId("lungs").checked);
    if (this.legendOf !== this.strength()) {
      this.legendOf = this.strength();
      drawLegend(byId("legend"), this.legendOf);
      byId("heat-strip").style.opacity = this.legendOf;
    }
    this.paint();
  }

  // At most once a frame, however much was asked for.
  paint() {
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = 0;
      if (this.shown && this.scan) this.paintNow();
    });
  }

  paintNow() {
    const { canvas, context: c } = this;
    const dots = window.devicePixelRatio || 1;
    const [width, height] = [Math.max(64, Math.round(canvas.clientWidth * dots)), Math.max(64, Math.round(canvas.clientHeight * dots))];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.fillStyle = "#000";
    c.fillRect(0, 0, width, height);
    for (const pane of this.panes()) {
      this.paintPane(c, pane);
      paintMarks(c, pane, this.scan, dots);
    }
    canvas.dataset.slice = this.at + 1;
    if (!performance.getEntriesByName("groundglass-picture").length) performance.mark("groundglass-picture");
  }

  compare() {
    return document.querySelector("input[name=compare]:checked").value;
  }

  // Parts of the canvas: where they lie, and from which column on they show what was found.
  panes() {
    const { width: w, height: h } = this.canvas;
    const how = this.compare();
    if (how === "over") return [this.fitted({ x: 0, y: 0, w, h, from: 0 })];
    if (how === "wipe") return [this.fitted({ x: 0, y: 0, w, h, from: (w * byId("wipe").value) / 100, line: true })];
    const second = w >= h ? { x: w / 2, y: 0 } : { x: 0, y: h / 2 };
    const size = w >= h ? { w: w / 2 - 2, h } : { w, h: h / 2 - 2 };
    return [this.fitted({ x: 0, y: 0, ...size, from: Infinity }), this.fitted({ ...second, ...size, from: 0 })];
  }

  // A pane with its map from pixels of the slice to the canvas.
  fitted(pane) {
    const { width, height, spacing } = this.scan.view;
    const tall = spacing ? spacing[0] / spacing[1] : 1;
    const scale = Math.min(pane.w / width, pane.h / (height * tall)) * this.zoom;
    return { ...pane, sx: scale, sy: scale * tall, left: pane.x + pane.w / 2 - this.middle.x * scale, top: pane.y + pane.h / 2 - this.middle.y * scale * tall };
  }

  paintPane(c, pane) {
    const within = (x, w, draw) => {
      c.save();
      c.beginPath();
      c.rect(x, pane.y, w, pane.h);
      c.clip();
      c.setTransform(pane.sx, 0, 0, pane.sy, pane.left, pane.top);
      c.imageSmoothingEnabled = this.zoom < 4;
      draw();
      c.restore();
    };
    within(pane.x, pane.w, () => c.drawImage(this.gray, 0, 0));
    const from = Math.max(pane.x, pane.from);
    if (from < pane.x + pane.w) {
      within(from, pane.x + pane.w - from, () => {
        if (this.shown.heat) {
          c.globalAlpha = this.strength();
          c.drawImage(this.shown.heat, 0, 0);
          c.globalAlpha = 1;
        }
        c.drawImage(this.veil, 0, 0);
      });
    }
    if (pane.line) {
      c.fillStyle = "#fff";
      c.fillRect(pane.from - 1, pane.y, 2, pane.h);
    }
  }

  // A slice at its own size, plain or with what was found, on a canvas of its own; null where it is not there yet.
  async picture(index, found = true) {
    const part = await this.slices.part(index);
    const { view } = this.scan;
    const tall = view.spacing ? view.spacing[0] / view.spacing[1] : 1;
    const canvas = made("canvas", { width: view.width, height: Math.round(view.height * tall) });
    const layer = document.createElement("canvas");
    const c = canvas.getContext("2d");
    const put = (image) => c.drawImage(image, 0, 0, canvas.width, canvas.height);
    drawGray(layer, part, view, this.level);
    put(layer);
    if (found && part.heat) put(part.heat);
    drawFound(layer, part, view, found && byId("shown").value === "opacity" ? 0.6 : 0, found);
    if (found) put(layer);
    return canvas;
  }

  async drawHighest() {
    const { scan } = this;
    const buttons = scan.view.ranked.slice(0, 8).map((index) => {
      const words = `${index + 1}: ${percent(this.chance.get(index))}`;
      const button = made("button", { type: "button" }, made("canvas", { width: 104, height: 104 }), words);
      button.dataset.index = index;
      button.setAttribute("aria-label", t("Slice {n}: {percent}", { n: index + 1, percent: percent(this.chance.get(index)) }));
      button.addEventListener("click", () => this.go(index));
      return button;
    });
    byId("highest").replaceChildren(...buttons);
    this.say();
    for (const button of buttons) {
      const drawn = await this.picture(Number(button.dataset.index)).catch(() => null);
      if (this.scan !== scan || !drawn) return;
      const scale = 104 / Math.max(drawn.width, drawn.height);
      const [w, h] = [drawn.width * scale, drawn.height * scale];
      button.firstChild.getContext("2d").drawImage(drawn, (104 - w) / 2, (104 - h) / 2, w, h);
    }
  }

  // ---- moving --------------------------------------------------------------------------------------------------------

  whole() {
    const { width, height } = this.scan.view;
    this.zoom = 1;
    this.middle = { x: width / 2, y: height / 2 };
    this.paint();
  }

  // The point of the slice that stays where it is while it grows is the middle, or the one under the pointer.
  zoomBy(factor, at = this.middle) {
    const zoom = Math.max(1, Math.min(12, this.zoom * factor));
    const real = this.zoom / zoom;
    this.zoom = zoom;
    this.move(at.x + (this.middle.x - at.x) * real, at.y + (this.middle.y - at.y) * real);
  }

  move(x, y) {
    const { width, height } = this.scan.view;
    const [half, tall] = [width / 2 / this.zoom, height / 2 / this.zoom];
    this.middle = { x: Math.max(half, Math.min(width - half, x)), y: Math.max(tall, Math.min(height - tall, y)) };
    this.paint();
  }

  setWindow(center, width) {
    if (this.scan.view.unit !== "HU") return;
    this.level = { center: Math.max(-2000, Math.min(4000, center)), width: Math.max(1, Math.min(6000, width)) };
    const name = `${Math.round(this.level.center)} ${Math.round(this.level.width)}`;
    byId("window").value = [...byId("window").options].some((option) => option.value === name) ? name : "";
    this.say();
    this.repaint();
  }

  // The pixel of the slice under the pointer, with the map of its pane; null outside the slice.
  place(event, inside = true) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [((event.clientX - box.left) * this.canvas.width) / box.width, ((event.clientY - box.top) * this.canvas.height) / box.height];
    const panes = this.panes();
    const pane = panes.find((p) => x >= p.x && y >= p.y && x < p.x + p.w && y < p.y + p.h) || panes[0];
    const at = { x: (x - pane.left) / pane.sx, y: (y - pane.top) / pane.sy, pane };
    if (!inside) return at;
    const { width, height } = this.scan.view;
    const cell = { x: Math.floor(at.x), y: Math.floor(at.y) };
    return cell.x >= 0 && cell.y >= 0 && cell.x < width && cell.y < height ? cell : null;
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.scan) return;
      canvas.setPointerCapture(event.pointerId);
      const box = canvas.getBoundingClientRect();
      const line = box.left + (box.width * byId("wipe").value) / 100;
      this.wiping = this.compare() === "wipe" && Math.abs(event.clientX - line) < WIPE_NEAR;
      this.pointers.set(event.pointerId, event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.scan) return;
      this.sayPointer(event);
      const before = this.pointers.get(event.pointerId);
      if (!before) return;
      if (this.pointers.size === 2) this.pinch(before, event);
      else this.drag(before, event);
      this.pointers.set(event.pointerId, event);
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => tell("pointer", ""));
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    byId("shown").addEventListener("change", () => {
      this.open();
      this.sayFound();
      this.go(this.index);
    });
    for (const id of ["found", "lungs", "strength"]) byId(id).addEventListener("input", () => this.repaint());
    byId("compare").addEventListener("change", () => this.compared());
    byId("wipe").addEventListener("input", () => this.paint());
    byId("slice").addEventListener("input", (event) => this.go(Number(event.target.value) - 1));
    byId("window").addEventListener("change", (event) => {
      if (event.target.value) this.setWindow(...event.target.value.split(" ").map(Number));
    });
    byId("closer").addEventListener("click", () => this.zoomBy(1.4));
    byId("farther").addEventListener("click", () => this.zoomBy(1 / 1.4));
    byId("whole").addEventListener("click", () => this.whole());
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  compared() {
    byId("wipe-part").hidden = this.compare() !== "wipe";
    this.paint();
  }

  // Up is towards the head, as with the arrow keys.
  wheel(event) {
    if (!this.scan) return;
    event.preventDefault();
    if (event.ctrlKey || this.scan.view.slices < 2) return this.zoomBy(event.deltaY > 0 ? 1 / 1.2 : 1.2, this.place(event, false));
    this.turned = Math.sign(this.turned || 0) === Math.sign(event.deltaY) ? this.turned + event.deltaY : event.deltaY;
    if (Math.abs(this.turned) < 30 && event.deltaMode === 0) return undefined; // a touch pad turns in small steps
    this.turned = 0;
    return this.go(this.index - Math.sign(event.deltaY));
  }

  drag(before, event) {
    const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
    const box = this.canvas.getBoundingClientRect();
    if (this.wiping) {
      byId("wipe").value = (100 * (event.clientX - box.left)) / box.width;
      this.paint();
    } else if (byId("pan").checked || event.shiftKey || this.scan.view.unit !== "HU") {
      const { pane } = this.place(event, false);
      const dots = this.canvas.width / box.width;
      this.move(this.middle.x - (dx * dots) / pane.sx, this.middle.y - (dy * dots) / pane.sy);
    } else {
      this.setWindow(this.level.center - (dy / box.height) * 1500, this.level.width + (dx / box.width) * 3000);
    }
  }

  pinch(before, event) {
    const other = [...this.pointers.values()].find((pointer) => pointer.pointerId !== event.pointerId);
    const far = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY);
    if (far(before) > 0) this.zoomBy(far(event) / far(before), this.place(other, false));
  }

  // What a key does, or undefined.
  act(key) {
    const { slices } = this.scan.view;
    const toggle = (id) => () => {
      byId(id).checked = !byId(id).checked;
      this.repaint();
    };
    const preset = (n) => () => this.setWindow(...byId("window").options[n].value.split(" ").map(Number));
    const compare = () => {
      const all = [...document.querySelectorAll("input[name=compare]")];
      all[(all.findIndex((one) => one.checked) + 1) % all.length].checked = true;
      this.compared();
    };
    const moves = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -slices, End: slices };
    if (key in moves) return slices > 1 ? () => this.go(this.index + moves[key]) : undefined;
    const acts = { 1: preset(0), 2: preset(1), 3: preset(2), 4: preset(3), "+": () => this.zoomBy(1.2), "=": () => this.zoomBy(1.2), "-": () => this.zoomBy(1 / 1.2), 0: () => this.whole(), h: toggle("found"), l: toggle("lungs"), c: compare };
    return acts[key.toLowerCase()];
  }
}
