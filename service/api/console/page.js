// The behaviour of the page. All text is set through textContent: prompts and answers are foreign text and never markup.
// A refresh changes only what has changed, so that a focus, a selection and a disabled button stay.

const EVERY_MS = 5000;
const PATIENCE_MS = 15000;
const byId = (id) => document.getElementById(id);

/** Call the API; a problem becomes an Error with its one sentence. */
async function call(path, options = {}) {
  const response = await fetch(path, options).catch(() => {
    throw new Error("The server cannot be reached.");
  });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.detail ?? `The server answered ${response.status}.`);
  return body;
}

const look = (path) => call(path, { signal: AbortSignal.timeout(PATIENCE_MS) });
const post = (path, body) =>
  call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Replace the text of an element. An equal text is not set again, so that a screen reader does not repeat it. */
function say(where, text, className = where.className) {
  if (where.textContent !== String(text)) where.textContent = text;
  if (where.className !== className) where.className = className;
}

/**
 * Show items as the rows of a table, one row an item by its id. `cellsOf` gives texts; `actionOf` what a button in the last
 * cell does, as {name, label, run}, or nothing. A cell knows its column's name, for screens on which there are no columns.
 */
function showRows(body, items, idOf, cellsOf, actionOf) {
  const names = [...body.parentElement.tHead.rows[0].cells].map((cell) => cell.textContent);
  const left = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  items.forEach((item, place) => {
    const id = String(idOf(item));
    const row = left.get(id) ?? body.insertRow(place);
    left.delete(id);
    row.dataset.id = id;
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place]);
    const cells = cellsOf(item);
    cells.forEach((text, column) => {
      const cell = row.cells[column] ?? row.insertCell();
      cell.dataset.name = names[column];
      say(cell, text);
    });
    row.className = item.status === "failed" ? "bad" : "";
    if (actionOf) showAction(row.cells[cells.length] ?? row.insertCell(), actionOf(item));
  });
  for (const row of left.values()) row.remove();
}

function showAction(cell, action) {
  const there = cell.querySelector("button");
  if (!action) {
    if (there && !there.disabled) cell.replaceChildren();
    return;
  }
  cell.run = action.run;
  if (there?.textContent === action.name) return;
  const button = element("button", action.name, "quiet");
  button.setAttribute("aria-label", action.label);
  const trouble = element("small", "", "bad");
  trouble.setAttribute("role", "alert");
  button.addEventListener("click", () => busy(button, cell.run, trouble));
  cell.replaceChildren(button, trouble);
}

const share = (value) => (value === null || value === undefined ? "–" : `${Math.round(value * 1000) / 10} %`);
const moment = (text) => (text === null ? "–" : new Date(text).toLocaleString());

const LIVE = ["applied", "consolidated"];
const FIGURES = {
  retention: "edits still answered",
  near: "answers near edits, kept",
  same_subject: "other answers on their subjects, kept",
  given: "locality probes of clients, kept",
  far: "answers far from edits, kept",
  prose: "likeliest tokens of prose, kept",
  prose_inside: "the same, of sentences that fits use",
  capability: "skills, of the base model's",
};

async function showModel() {
  const model = await look("/model");
  const facts = {
    model: model.base,
    version: model.head,
    epoch: model.epoch,
    "live edits": model.edits_counted,
    "of these in the window": model.window,
    retention: share(model.retention),
    waiting: model.waiting,
  };
  if (model.degraded) facts.degraded = model.degraded;
  showFacts(byId("model"), facts);
  const trained = model.major_at === null ? "never retrained from the base" : `from the base ${moment(model.major_at)}`;
  const counted = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  const since = `${counted(model.minors, "minor retrain")} since`;
  say(byId("course"), `${counted(model.window, "edit")} in the window · ${trained} · ${since}`);
  const known = Object.keys(FIGURES).filter((name) => name in model.measured);
  byId("unmeasured").hidden = known.length > 0;
  showRows(byId("measured"), known, (name) => name, (name) => {
    const { score, n, at, how, version } = model.measured[name];
    return [FIGURES[name], share(score), n, moment(at), version === model.head ? how : `${how}; asked of version ${version}`];
  });
}

function showFacts(list, facts) {
  const left = new Map([...list.children].map((row) => [row.firstChild.textContent, row]));
  for (const [name, value] of Object.entries(facts)) {
    let row = left.get(name);
    if (!left.delete(name)) {
      row = element("div");
      row.append(element("dt", name), element("dd"));
      list.append(row);
    }
    say(row.lastChild, value, name === "degraded" ? "bad" : "");
  }
  for (const row of left.values()) row.remove();
}

/** Show active jobs first, then ended retrains and exports. Apply jobs are left out: every edit has one. */
async function showJobs() {
  const [active, over] = await Promise.all([
    look("/jobs?kind=refit&kind=retrain&kind=export&status=running&status=queued&limit=8"),
    look("/jobs?kind=retrain&kind=export&status=done&status=failed&status=cancelled&limit=8"),
  ]);
  const jobs = [...new Map([...active.items, ...over.items].map((job) => [job.id, job])).values()];
  byId("idle").hidden = jobs.length > 0;
  showRows(byId("jobs"), jobs, (job) => job.id, jobCells, cancelling);
}

function jobCells(job) {
  const runs = job.status === "running";
  const done = [`${Math.round(job.progress * 100)} %`];
  if (runs && job.stage) done.push(job.stage);
  if (job.seconds_left !== null) done.push(`${Math.ceil(job.seconds_left)} s left`);
  return [
    [job.mode, job.kind].filter(Boolean).join(" "),
    job.cancel_asked_at && runs ? "being cancelled" : job.error ? `${job.status}: ${job.error}` : job.status,
    done.join(", "),
    job.version ?? "–",
    moment(job.started_at),
  ];
}

function cancelling(job) {
  const waits = job.status === "queued" || job.status === "running";
  if (!waits || job.cancel_asked_at !== null || job.kind === "refit") return null;
  const run = async () => {
    await call(`/jobs/${job.id}`, { method: "DELETE" });
    await refresh();
  };
  return { name: "cancel", label: `cancel the ${job.kind}`, run };
}

async function showEdits() {
  const { items } = await look("/edits?limit=20");
  byId("none").hidden = items.length > 0;
  showRows(
    byId("edits"),
    items,
    (edit) => edit.id,
    (edit) => [edit.seq, edit.prompt, edit.target, standing(edit), edit.version ?? "–"],
    takingBack,
  );
}

/** Where an edit stands: its status, why it is not live, when it is tried next, and whether a refusal was overruled for it. */
function standing(edit) {
  const { deferral } = edit;
  const tries = deferral?.tries ? ` (tried ${deferral.tries} time${deferral.tries === 1 ? "" : "s"})` : "";
  const reason = deferral?.reason ?? edit.error;
  const parts = [
    LIVE.includes(edit.status) && edit.accepted_anyway ? `${edit.status}, accepted anyway` : edit.status,
    reason ? `: ${reason}${tries}` : "",
    deferral ? `. Next: ${deferral.next_try.sentence}.` : "",
  ];
  return parts.join("");
}

function takingBack(edit) {
  if (!["queued", "deferred", "applied", "consolidated"].includes(edit.status)) return null;
  const run = async () => {
    const after = await call(`/edits/${edit.id}?wait=20`, { method: "DELETE" });
    await refresh();
    if (after.status !== "retracted") throw new Error("The retraction is accepted, but the model may still answer with the edit.");
  };
  return { name: "take back", label: `take back edit ${edit.seq}`, run };
}

async function showVersions() {
  const { items } = await look("/versions?limit=8");
  if (!items.some((version) => version.number === 0)) items.push(await look("/versions/0"));
  showRows(byId("versions"), items, (version) => version.number, versionCells, rollingBack);
}

function versionCells(version) {
  const figure = (name) => {
    const found = version.measured[name];
    return found && found.version !== version.number ? `${share(found.score)} (of ${found.version})` : share(found?.score);
  };
  const from = version.restores === null ? "" : ` to ${version.restores}`;
  const against = version.scores.accepted === "anyway" ? ", accepted anyway" : "";
  return [
    version.head ? `${version.number} (answers)` : version.number,
    version.kind + from + against + (version.status === "published" ? "" : `, ${version.status}`),
    version.edits_counted,
    version.window,
    figure("retention"),
    figure("far"),
    figure("capability"),
    moment(version.created_at),
  ];
}

function rollingBack(version) {
  if (version.head || version.status !== "published") return null;
  return { name: "roll back", label: `roll back to version ${version.number}`, run: () => askForRollback(version.number) };
}

function askForRollback(number) {
  const dialog = byId("rollback");
  dialog.dataset.number = number;
  say(byId("rollback-title"), `Answer as version ${number} did?`);
  say(dialog.querySelector("[role=alert]"), "");
  dialog.showModal();
}

async function rollBack(dialog, fields) {
  const wanted = { to: Number(dialog.dataset.number), reason: fields.get("reason"), requeue: fields.has("requeue") };
  await post("/admin/rollback", wanted);
  dialog.close();
  await refresh();
}

async function ask(prompt) {
  say(byId("unanswered"), "");
  const shown = [];
  for (const version of ["head", "base"]) {
    const answer = await post("/generate", { prompt, version, max_new_tokens: 32 });
    const line = element("p", answer.text || "(nothing)");
    line.append(element("br"), element("small", version === "base" ? "the base model" : `version ${answer.version}`));
    shown.push(line);
  }
  byId("answers").replaceChildren(...shown);
}

async function correct(fields) {
  const rephrases = fields.get("rephrases").split("\n").map((line) => line.trim()).filter(Boolean);
  const accept = fields.has("anyway") ? "anyway" : "judged";
  const edit = await post("/edits?wait=20", { prompt: fields.get("prompt"), target: fields.get("target"), rephrases, accept });
  const time = edit.report?.milliseconds;
  say(byId("outcome"), `${standing(edit)}${time ? ` in ${Math.round(time)} ms` : ""}`);
  byId("ask").elements.prompt.value = edit.prompt;
  await ask(edit.prompt);
  await refresh();
}

async function retrain(fields) {
  const mode = fields.get("mode");
  const job = await post("/admin/retrain", { reason: fields.get("reason"), ...(mode ? { mode } : {}) });
  say(byId("work"), `The retrain is in the list: it ${job.status === "running" ? "runs" : "waits for its turn"}.`);
  await refresh();
}

/** Run `work` with the button disabled. An error is shown at `trouble`, beside the button. */
async function busy(button, work, trouble) {
  button.disabled = true;
  try {
    say(trouble, "");
    await work();
  } catch (error) {
    say(trouble, error.message);
  } finally {
    button.disabled = false;
  }
}

let seen = null;

/** Read everything again. An error is shown once at the top, with the time of the data below. */
async function refresh() {
  try {
    await Promise.all([showModel(), showEdits(), showJobs(), showVersions()]);
    seen = new Date();
    say(byId("unreached"), "");
  } catch (error) {
    const since = seen === null ? "" : ` What is shown is from ${seen.toLocaleTimeString()}.`;
    say(byId("unreached"), `${error.message}${since}`);
  }
}

async function lookNowAndThen() {
  if (!document.hidden) await refresh();
  setTimeout(lookNowAndThen, EVERY_MS);
}

function onSubmit(form, trouble, work) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    busy(event.submitter ?? form.querySelector("button"), () => work(new FormData(form)), trouble);
  });
}

onSubmit(byId("ask"), byId("unanswered"), (fields) => ask(fields.get("prompt")));
onSubmit(byId("correct"), byId("outcome"), correct);
onSubmit(byId("retrain"), byId("work"), retrain);
const dialog = byId("rollback");
onSubmit(dialog.querySelector("form"), dialog.querySelector("[role=alert]"), (fields) => rollBack(dialog, fields));
dialog.querySelector("button[value=cancel]").addEventListener("click", () => dialog.close());
document.addEventListener("visibilitychange", () => document.hidden || refresh());
lookNowAndThen();
