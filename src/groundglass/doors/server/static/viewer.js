// Shows the slices of one scan with opaque lung or heat, and lung outline: window, zoom, pan, keys, wheel, touch.

import { ofLung } from "./queue.js";

const NS = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const percent = (p) => (p < 0.001 ? "< 0.1 %" : p > 0.999 ? "> 99.9 %" : `${(100 * p).toFixed(1)} %`);

export class Viewer {
  // `get(path)` fetches from the service and gives a Response.
  constructor(get) {
    this.get = get;
    this.canvas = byId("canvas");
    this.context = this.canvas.getContext("2d");
    this.base = document.createElement("canvas");
    this.pointers = new Map();
    this.scan = null;
    this.listen();
  }

  async show(path, scan) {
    this.path = path;
    this.scan = scan;
    this.held = new Map();
    const view = scan.view;
    this.chance = new Map(scan.result.slices.map((s) => [s.index, s.probability]));
    this.opaque = new Map(scan.result.slices.filter((s) => s.opaque_share !== null).map((s) => [s.index, s.opaque_share]));
    byId("shown-part").hidden = !view.map;
    byId("shown").value = view.map ? "opacity" : "activation";
    byId("curve-words").hidden = !view.map;
    this.sayFound();
    this.level = { ...view.window };
    this.reset();
    byId("window-part").hidden = view.unit !== "HU";
    byId("window").value = `${this.level.center} ${this.level.width}`;
    byId("series-part").hidden = view.slices < 2;
    byId("slice").max = view.slices - 1;
    this.drawChart();
    this.listHighest();
    byId("viewer").hidden = false;
    await this.go(view.ranked[0]);
  }

  hide() {
    this.scan = null;
    this.held = new Map();
    byId("viewer").hidden = true;
  }

  reset() {
    this.zoom = 1;
    this.shift = { x: 0, y: 0 };
  }

  async part(index) {
    if (this.held.has(index)) return this.held.get(index);
    const of = this.held;
    const place = `${this.path}/${index}`;
    const picture = async (address) => {
      const answer = await this.get(address);
      return answer.ok ? createImageBitmap(await answer.blob()) : null;
    };
    const load = async () => {
      const [pixels, heat, lungs] = await Promise.all([
        this.get(`${place}/pixels`).then((answer) => {
          if (!answer.ok) throw new Error("These results are no longer held. Send the file again.");
          return answer.arrayBuffer();
        }),
        this.chance.has(index) ? picture(`${place}?view=${byId("shown").value}`) : null,
        picture(`${place}/lungs`),
      ]);
      return { pixels: new Int16Array(pixels), heat, lungs };
    };
    const promise = load();
    of.set(index, promise);
    if (of.size > 60) of.delete(of.keys().next().value);
    promise.catch(() => of.delete(index));
    return promise;
  }

  async go(index) {
    const view = this.scan.view;
    this.index = Math.max(0, Math.min(view.slices - 1, index));
    byId("slice").value = this.index;
    this.say();
    const scan = this.scan;
    const wanted = this.index;
    try {
      const part = await this.part(wanted);
      if (this.scan !== scan || this.index !== wanted) return; // a newer wish has come
      this.shown = part;
      this.paintBase();
      for (const near of [wanted + 1, wanted - 1]) {
        if (near >= 0 && near < view.slices) this.part(near).catch(() => {});
      }
    } catch (error) {
      if (this.scan === scan) byId("place").textContent = error.message;
    }
  }

  say() {
    const view = this.scan.view;
    const chance = this.chance.get(this.index);
    const share = this.opaque.get(this.index);
    const opaque = share === undefined ? "" : `, ${ofLung(share)} of its lung looks opaque`;
    const words = chance === undefined ? "not judged" : percent(chance) + opaque;
    byId("legend-words").textContent =
      share === undefined ? "Not judged" : `Tinted: lung that looks opaque; ${ofLung(share)} of the lung on this slice`;
    const text = view.slices > 1 ? `Slice ${this.index + 1} of ${view.slices}: ${words}` : `One slice: ${words}`;
    byId("place").textContent = text;
    byId("slice").setAttribute("aria-valuetext", text);
    this.canvas.setAttribute("aria-label", `${text}. Slice with ${byId("heat-name").textContent.toLowerCase()} and lung outline.`);
    byId("window-words").textContent = `Now ${Math.round(this.level.center)} / ${Math.round(this.level.width)} HU.`;
    const here = byId("chart").querySelector(".here");
    if (here) here.setAttribute("x", this.index);
    for (const button of byId("highest").children) {
      button.setAttribute("aria-current", String(Number(button.dataset.index) === this.index));
    }
  }

  // What the overlay is called, and which legend goes with it.
  sayFound() {
    const opacity = byId("shown").value === "opacity";
    byId("heat-name").textContent = opacity ? "Opaque lung" : "Heat";
    byId("legend-opacity").hidden = !opacity;
    byId("legend-heat").hidden = opacity;
  }

  paintBase() {
    if (!this.shown) return;
    const { height, width, unit } = this.scan.view;
    this.base.width = width;
    this.base.height = height;
    const context = this.base.getContext("2d");
    const image = context.createImageData(width, height);
    const words = new Uint32Array(image.data.buffer);
    const low = unit === "HU" ? this.level.center - this.level.width / 2 : 0;
    const scale = 255 / (unit === "HU" ? this.level.width : 255);
    const { pixels } = this.shown;
    for (let i = 0; i < pixels.length; i++) {
      const gray = Math.max(0, Math.min(255, (pixels[i] - low) * scale)) | 0;
      words[i] = 0xff000000 | (gray << 16) | (gray << 8) | gray;
    }
    context.putImageData(image, 0, 0);
    this.paint();
  }

  paint() {
    if (!this.shown || !this.scan) return;
    const { height, width, spacing } = this.scan.view;
    const tall = spacing ? spacing[0] / spacing[1] : 1;
    const side = Math.max(64, Math.round(this.canvas.clientWidth * (window.devicePixelRatio || 1)));
    const high = Math.round((side * height * tall) / width);
    if (this.canvas.width !== side || this.canvas.height !== high) {
      this.canvas.width = side;
      this.canvas.height = high;
    }
    const fit = side / width;
    const c = this.context;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.fillStyle = "#000";
    c.fillRect(0, 0, side, high);
    c.setTransform(fit * this.zoom, 0, 0, fit * tall * this.zoom, this.shift.x * side, this.shift.y * high);
    c.imageSmoothingEnabled = this.zoom < 4;
    c.drawImage(this.base, 0, 0);
    if (this.shown.heat && byId("heat").checked) {
      c.globalAlpha = Number(byId("opacity").value) / 100;
      c.drawImage(this.shown.heat, 0, 0);
      c.globalAlpha = 1;
    }
    if (this.shown.lungs && byId("lungs").checked) c.drawImage(this.shown.lungs, 0, 0);
  }

  drawChart() {
    const { slices } = this.scan.view;
    const threshold = this.scan.result.threshold;
    const chart = byId("chart");
    chart.replaceChildren();
    chart.setAttribute("viewBox", `0 0 ${slices} 100`);
    const add = (name, values) => {
      const element = document.createElementNS(NS, name);
      for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
      chart.append(element);
    };
    for (let i = 0; i < slices; i++) {
      const p = this.chance.get(i);
      const kind = p === undefined ? "none" : p >= threshold ? "covid" : "non-covid";
      const high = p === undefined ? 4 : Math.max(2, 100 * p);
      add("rect", { x: i + 0.08, y: 100 - high, width: 0.84, height: high, class: kind });
    }
    const line = [...this.opaque].sort((a, b) => a[0] - b[0]);
    // judged slices lie this far apart; one between them that shows no lung leaves a gap
    const step = Math.min(...line.slice(1).map(([i], n) => i - line[n][0]));
    const path = line.map(([i, s], n) => `${n && line[n - 1][0] === i - step ? "L" : "M"}${i + 0.5} ${100 - 100 * s}`);
    if (path.length > 1) add("path", { d: path.join(""), class: "opaque" });
    const y = 100 - 100 * threshold;
    add("line", { x1: 0, x2: slices, y1: y, y2: y, class: "threshold" });
    add("rect", { x: 0, y: 0, width: 1, height: 100, class: "here" });
  }

  listHighest() {
    byId("highest").replaceChildren(
      ...this.scan.view.ranked.slice(0, 8).map((index) => {
        const button = document.createElement("button");
        button.type = "button";
        button.dataset.index = index;
        button.textContent = `${index + 1}: ${percent(this.chance.get(index))}`;
        button.addEventListener("click", () => this.go(index));
        return button;
      }),
    );
  }

  zoomBy(factor, x = 0.5, y = 0.5) {
    const zoom = Math.max(1, Math.min(12, this.zoom * factor));
    const real = zoom / this.zoom;
    this.shift = { x: x - (x - this.shift.x) * real, y: y - (y - this.shift.y) * real };
    this.zoom = zoom;
    this.bound();
    this.paint();
  }

  bound() {
    const least = 1 - this.zoom;
    this.shift.x = Math.max(least, Math.min(0, this.shift.x));
    this.shift.y = Math.max(least, Math.min(0, this.shift.y));
  }

  setWindow(center, width) {
    this.level = { center: Math.max(-2000, Math.min(4000, center)), width: Math.max(1, Math.min(6000, width)) };
    const name = `${Math.round(this.level.center)} ${Math.round(this.level.width)}`;
    const known = [...byId("window").options].some((option) => option.value === name);
    byId("window").value = known ? name : "";
    this.say();
    this.paintBase();
  }

  listen() {
    const canvas = this.canvas;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, place(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = this.pointers.get(event.pointerId);
      if (!before || !this.scan) return;
      const now = place(event);
      if (this.pointers.size === 2) this.pinch(event.pointerId, before, now);
      else this.drag(event, before, now);
      this.pointers.set(event.pointerId, now);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (!this.scan) return;
        event.preventDefault();
        const down = Math.sign(event.deltaY);
        const at = place(event);
        if (event.ctrlKey || this.scan.view.slices < 2) this.zoomBy(down > 0 ? 1 / 1.2 : 1.2, at.x, at.y);
        else this.go(this.index + down);
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => this.key(event));
    byId("shown").addEventListener("change", () => {
      this.held = new Map();
      this.sayFound();
      if (this.scan) this.go(this.index);
    });
    for (const id of ["heat", "lungs", "opacity"]) byId(id).addEventListener("input", () => this.paint());
    byId("slice").addEventListener("input", (event) => this.go(Number(event.target.value)));
    byId("chart").addEventListener("click", (event) => {
      const box = byId("chart").getBoundingClientRect();
      this.go(Math.floor(((event.clientX - box.left) / box.width) * this.scan.view.slices));
    });
    byId("window").addEventListener("change", (event) => {
      if (event.target.value) this.setWindow(...event.target.value.split(" ").map(Number));
    });
    byId("closer").addEventListener("click", () => this.zoomBy(1.4));
    byId("farther").addEventListener("click", () => this.zoomBy(1 / 1.4));
    byId("whole").addEventListener("click", () => {
      this.reset();
      this.paint();
    });
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  drag(event, before, now) {
    const dx = now.x - before.x;
    const dy = now.y - before.y;
    const moves = byId("pan").checked || event.shiftKey || this.scan.view.unit !== "HU";
    if (moves) {
      this.shift = { x: this.shift.x + dx, y: this.shift.y + dy };
      this.bound();
      this.paint();
    } else {
      this.setWindow(this.level.center - dy * 1500, this.level.width + dx * 3000);
    }
  }

  pinch(id, before, now) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, value]) => value);
    const far = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
    if (far(before, other) > 0) this.zoomBy(far(now, other) / far(before, other), other.x, other.y);
  }

  key(event) {
    if (!this.scan || event.ctrlKey || event.metaKey || event.altKey) return;
    const toggle = (id) => () => {
      byId(id).checked = !byId(id).checked;
      this.paint();
    };
    const acts = {
      ArrowUp: () => this.go(this.index + 1),
      ArrowDown: () => this.go(this.index - 1),
      ArrowRight: () => this.go(this.index + 1),
      ArrowLeft: () => this.go(this.index - 1),
      PageUp: () => this.go(this.index + 10),
      PageDown: () => this.go(this.index - 10),
      Home: () => this.go(0),
      End: () => this.go(this.scan.view.slices - 1),
      "+": () => this.zoomBy(1.2),
      "=": () => this.zoomBy(1.2),
      "-": () => this.zoomBy(1 / 1.2),
      0: () => byId("whole").click(),
      h: toggle("heat"),
      l: toggle("lungs"),
    };
    const act = acts[event.key] || acts[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  }
}
