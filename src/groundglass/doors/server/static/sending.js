// Sends files to the service as jobs, follows them, and fetches what came back.

import { byId, t } from "./words.js";

const PICTURE = /\.(png|jpe?g|webp|tiff?)$/i;
const WHOLE = /\.(zip|nii|nii\.gz)$/i;

// What keeps a job from being judged.
export class Failed extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const stages = () => ({ queued: t("waiting for its turn"), listing: t("looking at the files"), reading: t("reading"), judging: t("judging"), drawing: t("drawing") });
const token = () => (byId("token") ? byId("token").value.trim() : "");
const headers = () => (token() ? { Authorization: `Bearer ${token()}` } : {});
const forgotten = () => new Failed("no_job", t("The service has forgotten these results. Send the file again."));

export const get = (path) => fetch(path, { headers: headers(), cache: "no-store" });

// ---- what to send ---------------------------------------------------------------------------------------------------

// With its folders, where the browser tells them; the order of slices is that of these names.
const pathOf = (file) => file.path || file.webkitRelativePath || file.name;

// Files as jobs: pictures and volumes by themselves, all others together as one series. Too many are refused.
export function jobsOf(files, asScan, most) {
  const alone = (file) => WHOLE.test(file.name) || (PICTURE.test(file.name) && !asScan);
  const jobs = files.filter(alone).map((file) => ({ name: file.name, files: [file], asScan: false }));
  const rest = files.filter((file) => !alone(file));
  if (asScan) rest.sort((a, b) => pathOf(a).localeCompare(pathOf(b), undefined, { numeric: true }));
  if (rest.length > most) throw new Failed("too_many", t("At most {most} files of a series can be sent one by one; make a zip of them.", { most }));
  if (rest.length) jobs.push({ name: rest.length === 1 ? rest[0].name : t("{count} files", { count: rest.length }), files: rest, asScan });
  return jobs;
}

// All files of a drop, those in folders too.
export async function dropped(items) {
  const files = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      file.path = entry.fullPath;
      files.push(file);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const part = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!part.length) return;
      for (const one of part) await walk(one);
    }
  };
  const entries = [...items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
  for (const entry of entries) await walk(entry);
  return files;
}

// ---- one job --------------------------------------------------------------------------------------------------------

export class Sender {
  // `say(text, share)` tells how far it is.
  constructor(say) {
    this.say = say;
    this.held = new Set(); // jobs that the service holds for us
    this.current = null; // the request or job at work
  }

  stop() {
    if (this.current) this.current.stop();
  }

  forget(id) {
    this.held.delete(id);
    return fetch(`/v1/jobs/${id}`, { method: "DELETE", headers: headers(), keepalive: true }).catch(() => {});
  }

  forgetAll() {
    for (const id of [...this.held]) this.forget(id);
  }

  // The id of a job and its scans, as /v1/jobs/{id}/scans/{n} gives them. Raises Failed.
  async run(job) {
    let sent;
    for (;;) {
      sent = await this.send(job);
      if (sent.status !== 503 && sent.status !== 429) break;
      this.say(t("{name}: the service is busy, trying again", { name: job.name }));
      await this.pause(sent.wait || 2);
    }
    const { id, code, detail } = sent.body;
    if (sent.status !== 202) throw new Failed(code || "not_accepted", detail || t("the service answered with status {status}", { status: sent.status }));
    this.held.add(id);
    const end = await this.follow(id, job.name);
    if (end.state !== "done") throw new Failed(end.code || "stopped", end.detail || t("the service stopped it"));
    performance.clearMarks();
    performance.mark("groundglass-answer");
    const scans = [];
    for (let number = 0; number < end.scans; number++) {
      const answer = await get(`/v1/jobs/${id}/scans/${number}?lang=${document.documentElement.lang}`);
      if (!answer.ok) throw forgotten();
      scans.push(await answer.json());
    }
    return { id, scans };
  }

  // Some seconds, or until the user stops it.
  pause(seconds) {
    return new Promise((done, failed) => {
      const timer = setTimeout(done, 1000 * seconds);
      this.current = {
        stop: () => {
          clearTimeout(timer);
          failed(new Failed("stopped", t("stopped")));
        },
      };
    });
  }

  // An upload that says how far it is: fetch cannot.
  send(job) {
    return new Promise((done, failed) => {
      const request = new XMLHttpRequest();
      const form = new FormData();
      const sending = t("{name}: sending", { name: job.name });
      job.files.forEach((file, number) => form.append("file", file, String(number + 1)));
      request.open("POST", `/v1/series?view=true${job.asScan ? "&as_scan=true" : ""}`);
      for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
      request.responseType = "json";
      request.upload.onprogress = (event) => {
        if (event.lengthComputable) this.say(sending, event.loaded / event.total);
      };
      request.onload = () =>
        done({ status: request.status, body: request.response || {}, wait: Number(request.getResponseHeader("Retry-After")) });
      request.onerror = () => failed(new Failed("not_sent", t("the service cannot be reached, or did not take all of it")));
      request.onabort = () => failed(new Failed("stopped", t("stopped")));
      this.current = { stop: () => request.abort() };
      this.say(sending, 0);
      request.send(form);
    });
  }

  async follow(id, name) {
    const leave = new AbortController();
    this.current = {
      stop: () => {
        leave.abort();
        this.forget(id);
      },
    };
    const answer = await fetch(`/v1/jobs/${id}/events`, { headers: headers(), signal: leave.signal });
    if (!answer.ok) throw forgotten();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const words = stages();
    let text = "";
    let last = { state: "failed", detail: "" };
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return last;
      text += value;
      const parts = text.split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        last = JSON.parse(part.split("data: ")[1]);
        const count = last.total ? ` ${t("{n} of {total}", { n: Math.min(last.done, last.total), total: last.total })}` : "";
        this.say(`${name}: ${words[last.stage] || last.stage}${count}`, last.total ? Math.min(1, last.done / last.total) : null);
      }
    }
  }
}
