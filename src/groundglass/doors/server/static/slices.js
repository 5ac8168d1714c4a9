// The slices of one scan as they come from the service: each is fetched once, and those nearby before anybody asks.

import { t } from "./words.js";

const HELD_BYTES = 256 * 2 ** 20;
const PIXEL_BYTES = 2.25; // two of the slice, two bits of marks
const AT_A_TIME = 5; // of the six that a browser asks one host at once; one stays for the slice that is wanted now

export class Slices {
  // `heated` holds the slices that have heat to show.
  constructor(get, path, view, heated) {
    Object.assign(this, { get, path, view, heated, held: new Map(), fetching: 0, at: 0, towards: 1 });
    this.most = Math.max(8, Math.floor(HELD_BYTES / (PIXEL_BYTES * view.width * view.height)));
  }

  // What is needed to draw a slice: pixels, one bit a pixel for lungs and opaque lung, and heat or null.
  part(index) {
    const known = this.held.get(index);
    if (known) return known;
    this.drop();
    const promise = this.fetched(index);
    this.held.set(index, promise);
    promise.catch(() => this.held.delete(index));
    return promise;
  }

  async fetched(index) {
    const place = `${this.path}/${index}`;
    const bytes = async (address) => {
      const answer = await this.get(address);
      if (!answer.ok) throw Object.assign(new Error(t("The service has forgotten these results. Send the file again.")), { gone: answer.status === 404 });
      return answer.arrayBuffer();
    };
    const heat = async () => {
      const answer = this.heated.has(index) ? await this.get(`${place}?view=activation`) : { ok: false };
      return answer.ok ? createImageBitmap(await answer.blob()) : null;
    };
    const [both, map] = await Promise.all([bytes(`${place}/pixels?marks=true`), heat()]);
    const size = this.view.width * this.view.height;
    return { pixels: new Int16Array(both, 0, size), marks: new Uint8Array(both, 2 * size), heat: map };
  }

  // Let go of what lies farthest, so that there is room for one more.
  drop() {
    const surplus = this.held.size + 1 - this.most;
    if (surplus <= 0) return;
    const far = [...this.held.keys()].sort((a, b) => Math.abs(b - this.at) - Math.abs(a - this.at));
    for (const index of far.slice(0, surplus)) this.held.delete(index);
  }

  // Fetch the nearest slices that are not held, first in the direction of travel.
  ahead(at, towards) {
    Object.assign(this, { at, towards });
    while (this.fetching < AT_A_TIME) {
      const next = this.nearest();
      if (next === undefined) return;
      this.fetching++;
      this.part(next)
        .then(() => true, () => false)
        .then((came) => {
          this.fetching--;
          if (came) this.ahead(this.at, this.towards);
        });
    }
  }

  nearest() {
    const reach = Math.min(this.view.slices, Math.floor(this.most / 2));
    for (let far = 1; far < reach; far++) {
      for (const index of [this.at + far * this.towards, this.at - far * this.towards]) {
        if (index >= 0 && index < this.view.slices && !this.held.has(index)) return index;
      }
    }
    return undefined;
  }
}
