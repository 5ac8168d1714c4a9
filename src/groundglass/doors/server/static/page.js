// Takes files, sends them one job after another, follows each job, and shows its results.

import { Queue, save } from "./queue.js";
import { Viewer } from "./viewer.js";

const byId = (id) => document.getElementById(id);
const STAGES = { queued: "Waiting for its turn", listing: "Looking at the files", reading: "Reading", judging: "Judging", drawing: "Drawing" };
const SAMPLE_FILES = { series: "series.zip" };
const PICTURE = /\.(png|jpe?g|webp|tiff?)$/i;
const WHOLE = /\.(zip|nii|nii\.gz)$/i;

const held = new Set(); // jobs that the service holds for us
let waiting = [];
let working = false;
let stopped = false; // by the user, since the job at work was begun
let current = null; // the request or job at work

const token = () => (byId("token") ? byId("token").value.trim() : "");
const headers = () => (token() ? { Authorization: `Bearer ${token()}` } : {});
const get = (path) => fetch(path, { headers: headers(), cache: "no-store" });

const viewer = new Viewer(get);
const queue = new Queue((row) => show(row));

function say(text, share = null) {
  byId("status").textContent = text;
  const bar = byId("progress");
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
}

function complain(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

// What keeps a job from being judged; the queue holds it as a row of its own.
class Failed extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const upper = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// ---- what to send ---------------------------------------------------------------------------------------------------

// With its folders, where the browser tells them; the order of slices is that of these names.
const pathOf = (file) => file.path || file.webkitRelativePath || file.name;

function jobsOf(files) {
  const asScan = byId("as-scan").checked;
  const alone = (file) => WHOLE.test(file.name) || (PICTURE.test(file.name) && !asScan);
  const jobs = files.filter(alone).map((file) => ({ name: file.name, files: [file], asScan: false }));
  const rest = files.filter((file) => !alone(file));
  if (asScan) rest.sort((a, b) => pathOf(a).localeCompare(pathOf(b), undefined, { numeric: true }));
  const most = Number(byId("main").dataset.most);
  if (rest.length > most) complain(`At most ${most} files of a series can be sent one by one; make a zip of them.`);
  else if (rest.length) jobs.push({ name: rest.length === 1 ? rest[0].name : `${rest.length} files`, files: rest, asScan });
  return jobs;
}

async function dropped(items) {
  const files = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      file.path = entry.fullPath;
      files.push(file);
    } else {
      const reader = entry.createReader();
      for (;;) {
        const part = await new Promise((done, failed) => reader.readEntries(done, failed));
        if (!part.length) break;
        for (const one of part) await walk(one);
      }
    }
  };
  const entries = [...items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
  for (const entry of entries) await walk(entry);
  return files;
}

function add(files) {
  complain("");
  waiting.push(...jobsOf(files));
  if (!working) work();
}

async function work() {
  working = true;
  byId("work").hidden = false;
  let many = waiting.length > 1;
  while (waiting.length) {
    many = many || waiting.length > 1;
    const job = waiting.shift();
    stopped = false;
    let rows = [];
    try {
      rows = await run(job);
    } catch (error) {
      if (!stopped) {
        complain(`${job.name}: ${error.message}`);
        rows = [failure(job, error)];
      }
    }
    for (const row of rows) queue.add(row);
    if (rows.length && !many) queue.take(rows[0]);
  }
  current = null;
  working = false;
  byId("work").hidden = true;
}

// The rows of a job, one a scan.
async function run(job) {
  let sent;
  for (;;) {
    sent = await send(job);
    if (sent.status !== 503 && sent.status !== 429) break;
    say(`${job.name}: the service is busy, trying again`);
    await pause(sent.wait || 2);
  }
  const { id, code, detail } = sent.body;
  if (sent.status !== 202) throw new Failed(code || "not_accepted", `expected ${detail || `an answer, got status ${sent.status}`}`);
  held.add(id);
  const end = await follow(id, job.name);
  if (end.state !== "done") throw new Failed(end.code || "stopped", end.detail ? `expected ${end.detail}` : "the service stopped it");
  const rows = [];
  for (let number = 0; number < end.scans; number++) rows.push(await rowOf(id, number, job, end.scans));
  return rows;
}

// Some seconds, or until the user stops it.
function pause(seconds) {
  return new Promise((done, failed) => {
    const timer = setTimeout(done, 1000 * seconds);
    current = {
      stop: () => {
        clearTimeout(timer);
        failed(new Failed("stopped", "stopped"));
      },
    };
  });
}

// An upload that says how far it is: fetch cannot.
function send(job) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    job.files.forEach((file, number) => form.append("file", file, String(number + 1)));
    request.open("POST", `/v1/series?view=true${job.asScan ? "&as_scan=true" : ""}`);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) say(`${job.name}: sending`, event.loaded / event.total);
    };
    request.onload = () =>
      done({ status: request.status, body: request.response || {}, wait: Number(request.getResponseHeader("Retry-After")) });
    request.onerror = () => failed(new Failed("not_sent", "the service cannot be reached, or did not take all of it"));
    request.onabort = () => failed(new Failed("stopped", "stopped"));
    current = { stop: () => request.abort() };
    say(`${job.name}: sending`, 0);
    request.send(form);
  });
}

async function follow(id, name) {
  const leave = new AbortController();
  current = {
    stop: () => {
      leave.abort();
      forget(id);
    },
  };
  const answer = await fetch(`/v1/jobs/${id}/events`, { headers: headers(), signal: leave.signal });
  if (!answer.ok) throw new Failed("no_job", "the service has forgotten it; send it again");
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
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
      const stage = STAGES[last.stage] || last.stage;
      const count = last.total ? ` ${Math.min(last.done, last.total)} of ${last.total}` : "";
      say(`${name}: ${stage.toLowerCase()}${count}`, last.total ? Math.min(1, last.done / last.total) : null);
    }
  }
}

// ---- what came back -------------------------------------------------------------------------------------------------

async function rowOf(id, number, job, scans) {
  const answer = await get(`/v1/jobs/${id}/scans/${number}`);
  if (!answer.ok) throw new Failed("no_job", "the service has forgotten it; send it again");
  const scan = await answer.json();
  const { result } = scan;
  const within = result.input.replace(/^upload\/?/, "");
  const part = job.files.length > 1 && /^\d{6}$/.test(within) ? job.files[Number(within) - 1].name : within;
  const answers = { covid: "at or above threshold", "non-covid": "below threshold" };
  return {
    id,
    number,
    scan,
    result,
    name: scans > 1 ? `${job.name}: ${part || number + 1}` : job.name,
    kind: result.status === "ok" ? result.label : result.status,
    answer: result.status === "ok" ? answers[result.label] : result.status === "refused" ? "refused" : "failed",
    probability: result.probability,
    threshold: result.threshold,
    opaque: result.opaque ? result.opaque.total : null,
    slices: result.slices ? result.slices.length : null,
  };
}

// The row of a job that the service has not judged.
function failure(job, error) {
  const meaning = `${upper(error.message)}.`;
  const words = { status: "error", verdict: "No answer: this was not judged", meaning, warnings: [] };
  const result = { status: "error", code: error.code || "internal", detail: error.message, warnings: [] };
  return {
    id: null,
    scan: { words, result, view: null },
    result,
    name: job.name,
    kind: "error",
    answer: "failed",
    probability: null,
    threshold: null,
    opaque: null,
    slices: null,
  };
}

function show(row) {
  const { words, result, view } = row.scan;
  byId("source").textContent = row.name;
  byId("verdict").textContent = words.verdict;
  byId("verdict").className = words.status;
  byId("number").textContent = words.probability || "";
  byId("number").hidden = result.status !== "ok";
  byId("scale").hidden = result.status !== "ok";
  if (result.status === "ok") {
    byId("scale").className = result.label;
    byId("scale-bar").setAttribute("width", 200 * result.probability);
    byId("scale-mark").setAttribute("x", Math.min(198.5, 200 * result.threshold));
    byId("scale-words").textContent = `Probability ${words.probability}, threshold ${(100 * result.threshold).toFixed(1)} % (the line on the bar)`;
  }
  list("words", [words.meaning, words.severity, words.second, words.certainty, words.worth, words.lungs, words.heat].filter(Boolean));
  list("warnings", words.warnings);
  byId("warnings-part").hidden = words.warnings.length === 0;
  byId("keep").hidden = row.id === null;
  if (row.id !== null) offer(row);
  byId("result").hidden = false;
  if (view) viewer.show(`/v1/overlay/${row.id}/${row.number}`, row.scan);
  else viewer.hide();
  byId("result").focus({ preventScroll: true });
  byId("result").scrollIntoView({ block: "start" });
}

function list(id, texts) {
  byId(id).replaceChildren(
    ...texts.map((text) => {
      const item = document.createElement("li");
      item.textContent = upper(text);
      return item;
    }),
  );
}

function offer(row) {
  const job = `/v1/jobs/${row.id}/scans/${row.number}`;
  const fetched = (name, path) => async () => {
    const answer = await get(path);
    if (answer.ok) save(name, "", await answer.blob());
    else complain("These results are no longer held. Send the file again.");
  };
  const json = JSON.stringify({ ...row.result, input: row.name });
  const buttons = [["Result (JSON)", () => save("groundglass-result.json", "application/json", `${json}\n`)]];
  if (row.scan.view) buttons.push(["Picture (PNG)", fetched("groundglass-overlay.png", `/v1/overlay/${row.id}/${row.number}`)]);
  buttons.push(["Report to print (HTML)", fetched("groundglass-report.html", `${job}/report`)]);
  for (const [name, title, path] of row.scan.downloads || []) buttons.push([title, fetched(name, path)]);
  byId("downloads").replaceChildren(
    ...buttons.map(([title, act]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = title;
      button.addEventListener("click", act);
      return button;
    }),
  );
}

function forget(id) {
  held.delete(id);
  return fetch(`/v1/jobs/${id}`, { method: "DELETE", headers: headers(), keepalive: true }).catch(() => {});
}

// ---- the form -------------------------------------------------------------------------------------------------------

byId("folder-part").hidden = false;
byId("drop-hint").hidden = false;
byId("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const sample = event.submitter && event.submitter.name === "sample" ? event.submitter.value : null;
  if (sample) {
    byId("work").hidden = false;
    say("Drawing a chest");
    const answer = await get(`/samples/${sample}`);
    byId("work").hidden = working;
    if (!answer.ok) return complain("The sample could not be drawn. Is the token right?");
    return add([new File([await answer.blob()], SAMPLE_FILES[sample] || `${sample}.png`)]);
  }
  const files = [...byId("file").files, ...byId("folder").files];
  if (!files.length) return complain("Choose a file first, or drop one here.");
  byId("file").value = byId("folder").value = "";
  return add(files);
});
// On the whole page: a file that is dropped beside the form would else be opened in place of the page.
const hasFiles = (event) => event.dataTransfer.types.includes("Files"); // text may still be dragged into a field
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  byId("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) byId("drop").classList.remove("over"); // it has left the window
});
document.addEventListener("drop", async (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  byId("drop").classList.remove("over");
  const files = await dropped(event.dataTransfer.items);
  if (files.length) add(files);
});
byId("stop").addEventListener("click", () => {
  waiting = [];
  stopped = true;
  if (current) current.stop();
});
byId("forget").addEventListener("click", () => {
  for (const id of [...held]) forget(id);
  queue.clear();
  viewer.hide();
  byId("result").hidden = true;
});
window.addEventListener("pagehide", () => {
  for (const id of [...held]) forget(id);
});
