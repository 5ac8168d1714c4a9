// Takes files, has them judged one after another, and shows the results.

import { Report } from "./report.js";
import { dropped, get, jobsOf, Sender } from "./sending.js";
import { Viewer } from "./viewer.js";
import { byId, made, ofLung, percent, save, t, tell, upper } from "./words.js";
import { Worklist } from "./worklist.js";

const SAMPLE_FILES = { series: "series.zip" };

let working = false;
let stopped = false; // by the user, since the job at work was begun

const viewer = new Viewer(get, () => again(list.chosen));
const list = new Worklist((row) => show(row));
const report = new Report(viewer, () => list.chosen);
const sender = new Sender((text, share = null) => {
  byId("status").textContent = text;
  if (share === null) byId("progress").removeAttribute("value");
  else byId("progress").value = share;
});

const complain = (text) => tell("trouble", text);

// ---- work -----------------------------------------------------------------------------------------------------------

function add(files) {
  complain("");
  try {
    list.add(jobsOf(files, byId("as-scan").checked, Number(byId("main").dataset.most)).map(waiting));
  } catch (error) {
    complain(error.message);
  }
  work();
}

// Judge what waits, one job after another; one alone is shown at once.
async function work() {
  if (working) return;
  working = true;
  stopped = false;
  byId("work").hidden = false;
  byId("resume").hidden = true;
  byId("start").hidden = true;
  let many = false;
  for (let row = next(); row && !stopped; row = next()) {
    many = many || count() > 1;
    const rows = await judged(row);
    if (!rows) break;
    list.replace([row], rows);
    if (!many) list.take(rows[0]);
  }
  working = false;
  byId("work").hidden = true;
  byId("resume").hidden = !list.unfinished.length;
  byId("start").hidden = list.rows.some((row) => row.id !== null); // else the token may be wrong
  byId("to-start").hidden = !list.rows.length;
  list.draw(true);
}

const next = () => list.rows.find((row) => row.kind === "waiting");
const count = () => list.rows.filter((row) => row.kind === "waiting").length;

// The rows of a job, one a scan; a failure is a row too. Null if the user stopped it: then it waits.
async function judged(row) {
  try {
    const { id, scans } = await sender.run(row.job);
    return scans.map((scan, number) => answered(id, number, row.job, scan, scans.length));
  } catch (error) {
    if (stopped) return null;
    complain(`${row.job.name}: ${error.message}`);
    return [failure(row.job, error)];
  }
}

// Send the files of a row again, which the service has forgotten, and open it.
async function again(row) {
  if (!row || !row.job || working) return;
  const old = list.rows.filter((one) => one.id === row.id);
  const fresh = waiting(row.job);
  list.replace(old, [fresh]);
  const at = row.number;
  await work();
  const now = list.rows.filter((one) => one.job === row.job && one.number === at)[0];
  if (now && list.chosen !== now) list.take(now);
}

const blank = { id: null, number: 0, scan: null, result: null, probability: null, threshold: null, opaque: null, slices: null, seen: 0 };

function waiting(job) {
  return { ...blank, job, name: job.name, kind: "waiting", answer: t("waiting") };
}

function answered(id, number, job, scan, scans) {
  const { result } = scan;
  const within = result.input.replace(/^upload\/?/, "");
  const part = job.files.length > 1 && /^\d{6}$/.test(within) ? job.files[Number(within) - 1].name : within;
  const answers = { covid: t("above threshold"), "non-covid": t("below threshold") };
  return {
    ...blank,
    id,
    number,
    job,
    scan,
    result,
    name: scans > 1 ? `${job.name}: ${part || number + 1}` : job.name,
    kind: result.status === "ok" ? result.label : result.status,
    answer: result.status === "ok" ? answers[result.label] : result.status === "refused" ? t("refused") : t("failed"),
    probability: result.probability,
    threshold: result.threshold,
    opaque: result.opaque ? result.opaque.total : null,
    slices: result.slices ? result.slices.length : null,
  };
}

// The row of a job that the service has not judged.
function failure(job, error) {
  const words = { status: "error", answer: t("No answer: this was not judged."), caution: `${upper(error.message)}.`, warnings: [] };
  const result = { status: "error", code: error.code || "internal", detail: error.message, warnings: [] };
  return { ...blank, job, scan: { words, result, view: null }, result, name: job.name, kind: "error", answer: t("failed") };
}

// ---- one result -----------------------------------------------------------------------------------------------------

function show(row) {
  const { words, result, view } = row.scan;
  byId("source").textContent = row.name;
  byId("answer").textContent = words.answer;
  byId("answer").className = words.status;
  for (const id of ["caution", "original", "second"]) tell(id, words[id]);
  showScale(words, result);
  showShare(result);
  items("words", [words.certainty, words.worth, words.second_worth, words.lungs, words.heat].filter(Boolean));
  byId("more").hidden = !byId("words").children.length;
  items("warnings", words.warnings);
  byId("warnings-part").hidden = words.warnings.length === 0;
  byId("keep").hidden = row.id === null;
  byId("png").hidden = !view;
  byId("print").hidden = result.status !== "ok";
  showSeries(row.scan);
  byId("result").hidden = false;
  byId("to-keys").hidden = !view;
  if (view) viewer.show(`/v1/overlay/${row.id}/${row.number}`, row.scan);
  else viewer.hide();
  byId("result").focus({ preventScroll: true });
  byId("result").scrollIntoView({ block: "start" });
}

function showScale(words, result) {
  byId("scale").hidden = result.status !== "ok";
  if (result.status !== "ok") return;
  byId("scale").setAttribute("class", result.label);
  byId("scale-bar").setAttribute("width", 200 * result.probability);
  byId("scale-mark").setAttribute("x", Math.min(198.5, 200 * result.threshold));
  byId("scale-words").textContent = t("{percent}; the line is the threshold, {threshold}", { percent: words.probability, threshold: words.threshold });
  byId("meaning").textContent = words.meaning;
}

function showShare(result) {
  const { opaque } = result;
  byId("share").hidden = !opaque;
  if (!opaque) return;
  byId("class").textContent = `${result.ct_class}: ${t(EXTENT[result.ct_class])}`;
  for (const side of ["right", "left", "total"]) {
    const share = opaque[side];
    byId(`share-${side}`).value = share ?? 0;
    byId(`share-${side}-words`).textContent = share === null ? t("not seen") : ofLung(share);
  }
  tell("sides", opaque.sides === "file" ? "" : t("Right and left hold if the picture is shown as usual."));
}

const EXTENT = { "CT-0": "none or next to none", "CT-1": "less than a quarter", "CT-2": "a quarter to a half", "CT-3": "a half to three quarters", "CT-4": "three quarters or more" };

// The header of a DICOM series, or why there are no DICOM results.
function showSeries({ series, no_dicom: missing, view }) {
  const why = {
    not_dicom: t("No DICOM results: they are made for DICOM series only."),
    patient_identity: t("No DICOM results: the files name the patient in a way that DICOM does not allow, so a result could be filed under somebody else. Correct it in the archive and send the series again."),
    bad_uid: t("No DICOM results: the files lack valid UIDs of study, series and image, so a result could not be filed. Export the series again."),
    several_patients: t("No DICOM results: the files name more than one patient. Send the files of each patient by themselves."),
    extra: t("No DICOM results: this service was installed without them."),
  };
  tell("no-dicom", missing && view ? why[missing.code] || t("No DICOM results: {detail}.", { detail: missing.detail }) : "");
  byId("series-header").hidden = !series || !Object.keys(series).length;
  terms("series-rows", series || {});
  terms("patient-rows", {});
  byId("patient").hidden = false;
}

function terms(id, values) {
  const spaced = (keyword) => t(keyword.replace(/([a-z])([A-Z])/g, "$1 $2"));
  byId(id).replaceChildren(...Object.entries(values).flatMap(([name, text]) => [made("dt", { textContent: spaced(name) }), made("dd", { textContent: text })]));
}

const items = (id, texts) => byId(id).replaceChildren(...texts.map((text) => made("li", { textContent: upper(text) })));

// A file name of ours after the user's own one.
const called = (ending) => `${list.chosen.name.replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^[.-]+/, "") || "scan"}-groundglass.${ending}`;

async function keep(path, ending) {
  const answer = await get(path);
  if (answer.ok) return save(called(ending), "", await answer.blob());
  complain(t("The service has forgotten these results. Send the file again."));
  return again(list.chosen);
}

const placeOf = (row) => `/v1/jobs/${row.id}/scans/${row.number}`;

byId("zip").addEventListener("click", () => keep(`${placeOf(list.chosen)}/files`, "zip"));
byId("png").addEventListener("click", () => keep(`/v1/overlay/${list.chosen.id}/${list.chosen.number}`, "png"));
byId("json").addEventListener("click", () => save(called("json"), "application/json", `${JSON.stringify({ ...list.chosen.result, input: list.chosen.name })}\n`));
byId("print").addEventListener("click", () => report.print());
byId("patient").addEventListener("click", async () => {
  const answer = await get(`${placeOf(list.chosen)}/patient`);
  if (!answer.ok) return complain(t("The service has forgotten these results. Send the file again."));
  byId("patient").hidden = true;
  return terms("patient-rows", await answer.json());
});

// ---- the form -------------------------------------------------------------------------------------------------------

for (const part of document.querySelectorAll("#start .plain")) part.hidden = true;
for (const id of ["choose", "drop-hint"]) byId(id).hidden = false;
for (const name of ["file", "folder"]) {
  byId(name).addEventListener("change", () => {
    const files = [...byId(name).files];
    byId(name).value = "";
    if (files.length) add(files);
  });
}
byId("choose-files").addEventListener("click", () => byId("file").click());
byId("choose-folder").addEventListener("click", () => byId("folder").click());
byId("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const sample = event.submitter && event.submitter.name === "sample" ? event.submitter.value : null;
  if (!sample) return;
  byId("work").hidden = false;
  byId("status").textContent = t("Drawing a chest");
  const answer = await get(`/samples/${sample}`);
  byId("work").hidden = !working;
  if (answer.ok) add([new File([await answer.blob()], SAMPLE_FILES[sample] || `${sample}.png`)]);
  else complain(t("The sample could not be drawn. Is the token right?"));
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
  stopped = true;
  sender.stop();
});
byId("resume").addEventListener("click", () => {
  complain("");
  for (const row of list.unfinished) list.replace([row], [waiting(row.job)]);
  work();
});
function forget() {
  sender.forgetAll();
  list.clear();
  viewer.hide();
  for (const id of ["result", "to-keys", "to-start"]) byId(id).hidden = true;
  byId("start").hidden = false;
  complain("");
}
for (const button of document.querySelectorAll(".forget")) button.addEventListener("click", forget);
byId("to-start").addEventListener("click", () => {
  byId("start").hidden = false;
  byId("start").scrollIntoView({ block: "start" });
  byId("choose-files").focus({ preventScroll: true });
});
byId("to-list").addEventListener("click", () => {
  byId("list").scrollIntoView({ block: "start" });
  byId("list").focus({ preventScroll: true });
});
window.addEventListener("pagehide", () => sender.forgetAll());

// ---- keys -----------------------------------------------------------------------------------------------------------

byId("to-keys").addEventListener("click", () => byId("keys").showModal());
byId("keys-close").addEventListener("click", () => byId("keys").close());

// Keys belong to the picture where it is in sight, unless the focus is where they mean something else.
function ours(event) {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return false;
  if (target.closest("select, textarea, input[type=password]")) return false;
  if (key.length > 1 && target.closest(".scroll, input[type=range], input[type=radio]")) return false; // arrows are theirs
  if (target === byId("canvas")) return true;
  const box = byId("stage").getBoundingClientRect();
  const inSight = box.bottom > 120 && box.top < window.innerHeight - 120;
  return byId("keys-on").checked && inSight && !["PageUp", "PageDown", "Home", "End"].includes(key);
}

document.addEventListener("keydown", (event) => {
  if (byId("result").hidden || !ours(event)) return;
  const walk = { n: 1, p: -1 }[event.key];
  const known = { "?": () => byId("keys").showModal() }[event.key] || (walk && (() => list.walk(walk))) || (viewer.scan && viewer.act(event.key));
  if (!known) return;
  event.preventDefault();
  known();
});
