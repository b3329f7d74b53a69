// The page's behaviour. Everything shown goes through textContent: prompts and answers are anybody's text, never markup.

const byId = (id) => document.getElementById(id);

/** Call the API; a problem becomes an Error with its one sentence. */
async function call(path, options = {}) {
  const response = await fetch(path, options);
  const body = await response.json();
  if (!response.ok) throw new Error(body.detail ?? response.statusText);
  return body;
}

const post = (path, body) =>
  call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const share = (value) => (value === null ? "–" : `${Math.round(value * 1000) / 10} %`);
const moment = (text) => (text === null ? "–" : new Date(text).toLocaleString());

async function showModel() {
  const model = await call("/model");
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
  const rows = Object.entries(facts).map(([name, value]) => {
    const row = element("div");
    row.append(element("dt", name), element("dd", value, name === "degraded" ? "bad" : undefined));
    return row;
  });
  byId("model").replaceChildren(...rows);
  showMemory(model);
}

const FIGURES = {
  retention: "edits still answered",
  locality_inside: "left alone, inside the pool",
  locality_outside: "left alone, outside of it",
  capability: "skills, of the base model's",
};

function showMemory(model) {
  const trained = model.major_at === null ? "never retrained from the base" : `from the base ${moment(model.major_at)}`;
  byId("course").textContent = `${model.window} edits in the window · ${trained} · ${model.minors} minor retrains since`;
  const known = Object.keys(FIGURES).filter((name) => name in model.measured);
  byId("unmeasured").hidden = known.length > 0;
  byId("measured").replaceChildren(
    ...known.map((name) => {
      const { score, n, at, how } = model.measured[name];
      return tableRow(FIGURES[name], share(score), n, moment(at), how);
    }),
  );
}

function tableRow(...texts) {
  const row = element("tr");
  row.append(...texts.map((text) => element("td", text)));
  return row;
}

async function showJobs() {
  const { items } = await call("/jobs?limit=8");
  byId("jobs").replaceChildren(...items.map(jobRow));
}

function jobRow(job) {
  const kind = [job.mode, job.kind].filter(Boolean).join(" ");
  const left = job.seconds_left === null ? "" : `, ${Math.ceil(job.seconds_left)} s left`;
  const status = job.error ? `${job.status}: ${job.error}` : job.status;
  const progress = `${Math.round(job.progress * 100)} %${left}`;
  const row = tableRow(kind, status, progress, job.version ?? "–", moment(job.started_at));
  const last = element("td");
  const waits = job.status === "queued" || job.status === "running";
  if (waits && job.cancel_asked_at === null && (job.kind === "retrain" || job.kind === "export")) last.append(cancelButton(job));
  row.append(last);
  return row;
}

function cancelButton(job) {
  const button = element("button", "cancel", "quiet");
  button.setAttribute("aria-label", `cancel the ${job.kind}`);
  button.addEventListener("click", () =>
    busy(
      button,
      async () => {
        await call(`/jobs/${job.id}`, { method: "DELETE" });
        await refresh();
      },
      "work",
    ),
  );
  return button;
}

async function retrain(fields) {
  const mode = fields.get("mode");
  const job = await post("/admin/retrain", { reason: fields.get("reason"), ...(mode ? { mode } : {}) });
  byId("work").textContent = `the retrain is ${job.status}`;
  await refresh();
}

async function showEdits() {
  const { items } = await call("/edits?limit=20");
  byId("none").hidden = items.length > 0;
  byId("edits").replaceChildren(...items.map(editRow));
}

function editRow(edit) {
  const row = element("tr");
  const live = ["applied", "consolidated"].includes(edit.status);
  row.append(
    element("td", edit.seq),
    element("td", edit.prompt),
    element("td", edit.target),
    element("td", edit.error ? `${edit.status}: ${edit.error}` : edit.status, edit.status === "failed" ? "bad" : undefined),
    element("td", edit.version ?? "–"),
  );
  const last = element("td");
  if (live || edit.status === "queued" || edit.status === "deferred") last.append(takeBackButton(edit));
  row.append(last);
  return row;
}

function takeBackButton(edit) {
  const button = element("button", "take back", "quiet");
  button.addEventListener("click", () =>
    busy(button, async () => {
      await call(`/edits/${edit.id}?wait=20`, { method: "DELETE" });
      await refresh();
    }),
  );
  return button;
}

async function ask(prompt) {
  const answers = byId("answers");
  const shown = [];
  for (const version of ["head", "base"]) {
    const answer = await post("/generate", { prompt, version, max_new_tokens: 32 });
    const line = element("p", answer.text || "(nothing)");
    line.append(element("br"), element("small", version === "base" ? "the base model" : `version ${answer.version}`));
    shown.push(line);
  }
  answers.replaceChildren(...shown);
}

async function correct(fields) {
  const rephrases = fields.get("rephrases").split("\n").map((line) => line.trim()).filter(Boolean);
  const edit = await post("/edits?wait=20", { prompt: fields.get("prompt"), target: fields.get("target"), rephrases });
  const time = edit.report?.milliseconds;
  byId("outcome").textContent = `${edit.status}${time ? ` in ${Math.round(time)} ms` : ""}${edit.error ? `: ${edit.error}` : ""}`;
  byId("ask").elements.prompt.value = edit.prompt;
  await ask(edit.prompt);
  await refresh();
}

/** Run `work` with the button disabled; what goes wrong is shown where `place` says. */
async function busy(button, work, place = "outcome") {
  button.disabled = true;
  try {
    await work();
  } catch (error) {
    byId(place).textContent = error.message;
  } finally {
    button.disabled = false;
  }
}

const refresh = () => Promise.all([showModel(), showEdits(), showJobs()]);

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  busy(event.submitter, () => ask(event.target.elements.prompt.value));
});

byId("correct").addEventListener("submit", (event) => {
  event.preventDefault();
  busy(event.submitter, () => correct(new FormData(event.target)));
});

byId("retrain").addEventListener("submit", (event) => {
  event.preventDefault();
  busy(event.submitter, () => retrain(new FormData(event.target)), "work");
});

await refresh().catch((error) => (byId("outcome").textContent = error.message));
setInterval(() => document.hidden || refresh().catch(() => {}), 5000);
