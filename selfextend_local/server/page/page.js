// The page of `selfextend serve`: documents, a conversation about them, and the page that an answer names.
//
// Knows the server's HTTP interface and the elements of index.html. Whatever comes from a document, a file name or the model is put in as
// text nodes; nothing here reads HTML from a string.

const $ = (id) => document.getElementById(id);
const KEY = "selfextend-key";
const CONVERSATION = "selfextend-conversation";
const NARROW = matchMedia("(max-width: 899px)");
const STARTERS = ["What is this document about?", "Which names, dates and figures matter most?", "What does it conclude?"];

const state = {
  model: null, // the entry of /v1/models
  documents: [], // of this conversation: {document, asked, node}
  kept: [], // on the server, not in this conversation
  turns: [], // {question, answer, thoughts, citations, looked, remark, failure, asked}
  answering: null, // the AbortController of the answer that comes
};

// ---- elements ----

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function icon(name) {
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawn.setAttribute("class", "icon");
  drawn.setAttribute("aria-hidden", "true");
  const used = document.createElementNS("http://www.w3.org/2000/svg", "use");
  used.setAttribute("href", `#i-${name}`);
  drawn.append(used);
  return drawn;
}

function iconButton(name, label, onclick) {
  return element("button", { type: "button", class: "round", "aria-label": label, title: label, onclick }, icon(name));
}

function plainButton(label, onclick) {
  return element("button", { type: "button", class: "plain", onclick }, label);
}

function announce(words) {
  $("status").textContent = words;
}

// ---- words ----

const figures = new Intl.NumberFormat("en");
const count = (n, one) => `${figures.format(n)} ${one}${n === 1 ? "" : "s"}`;
const onOneLine = (words) => words.replaceAll(" ", "\u00a0");

function timeLeft(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 1.5) return ", about a second left";
  if (seconds < 90) return `, about ${Math.round(seconds)}\u00a0s left`;
  return `, about ${figures.format(Math.round(seconds / 60))}\u00a0min left`;
}

function pageName(document, number) {
  const label = document.labels?.[number - 1];
  return label && label !== String(number) ? `Page ${label} (${number} of ${document.n_pages})` : `Page ${number} of ${document.n_pages}`;
}

// ---- the server ----

class Failure extends Error {}

async function failureOf(response) {
  try {
    return new Failure((await response.json()).error.message);
  } catch {
    return new Failure(`The server answered ${response.status} ${response.statusText} without saying why: see its log.`);
  }
}

/** A request with the key; asks for the key where the server does. Raises Failure with the server's sentence. */
async function call(path, options = {}) {
  for (;;) {
    const headers = new Headers(options.headers);
    const key = sessionStorage.getItem(KEY);
    if (key) headers.set("Authorization", `Bearer ${key}`);
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Failure("The server doesn't answer. Is selfextend serve still running?");
    }
    if (response.status !== 401) {
      if (!response.ok) throw await failureOf(response);
      return response;
    }
    const problem = key ? "The server doesn't take this key. Type it again." : "";
    if (sessionStorage.getItem(KEY) === key) await askForKey(problem);
    options.signal?.throwIfAborted();
  }
}

let keyAsked = null;

function askForKey(problem) {
  keyAsked ??= new Promise((resolve, reject) => {
    const dialog = $("key-dialog");
    $("key-problem").textContent = problem;
    $("key-problem").hidden = !problem;
    $("key").value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      keyAsked = null;
      const key = $("key").value.trim();
      $("key").value = "";
      if (dialog.returnValue !== "key" || !key) return reject(new Failure("The server needs its API key: try again and type it."));
      sessionStorage.setItem(KEY, key);
      resolve();
    }, { once: true });
    dialog.showModal();
    $("key").focus();
  });
  return keyAsked;
}

/** The events of a response, each as what its data says. */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ?? "")).split(/\r?\n/);
    rest = done ? "" : lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Failure(event.error.message);
      yield event;
    }
    if (done) return;
  }
}

/** What went wrong, as a sentence; null where the user stopped it. */
function sentenceOf(error, signal) {
  if (signal.aborted) return null;
  if (error instanceof Failure) return error.message;
  if (error instanceof TypeError) return "The connection to the server broke off. Is selfextend serve still running?";
  return `Something unforeseen happened in the page: ${error.message}. Reload it and try again.`;
}

// ---- start ----

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function loaded() {
  for (let misses = 0; ; misses += 1) {
    try {
      if ((await fetch("/health")).ok) return;
      $("model").textContent = "The model is being loaded…";
      misses = 0;
    } catch {
      if (misses >= 2) $("model").textContent = "The server doesn't answer. Is selfextend serve still running?";
    }
    await pause(700);
  }
}

async function start() {
  await loaded();
  const models = await (await call("/v1/models")).json();
  state.model = models.data[0];
  $("model").textContent = state.model.id;
  const ours = state.model.selfextend;
  $("plan").hidden = !ours?.plan;
  $("plan-words").textContent = ours?.plan ?? "";
  try {
    state.kept = (await (await call("/v1/documents")).json()).data;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    $("model").textContent = error.message;
  }
  restoreConversation();
  showDocuments();
}

let ready = null;

/** Resolves once the server can be asked; begins anew where it failed. */
function whenReady() {
  ready ??= start().catch((error) => {
    ready = null;
    $("model").textContent = error.message;
    throw error;
  });
  return ready;
}

// ---- the conversation in this tab's storage ----

function keepConversation() {
  const turns = state.turns.filter((turn) => !turn.running && (turn.answer || turn.failure)).map(({ node, running, ...kept }) => kept);
  const documents = state.documents.filter((entry) => entry.document).map((entry) => [entry.document.id, entry.asked]);
  try {
    sessionStorage.setItem(CONVERSATION, JSON.stringify({ turns, documents }));
  } catch {
    sessionStorage.removeItem(CONVERSATION); // too long for the browser: the conversation goes on, a reload forgets it
  }
}

function restoreConversation() {
  let saved;
  try {
    saved = JSON.parse(sessionStorage.getItem(CONVERSATION)) ?? {};
  } catch {
    return;
  }
  for (const [id, asked] of saved.documents ?? []) {
    const found = state.kept.find((kept) => kept.id === id);
    if (found) opened(found, asked);
  }
  for (const turn of (saved.turns ?? []).map(addTurn)) showTurn(turn);
}

// ---- documents ----

const uploads = [];
let uploading = false;

async function addFiles(files) {
  for (const file of files) {
    const entry = { file, name: file.name, asked: true };
    state.documents.push(entry);
    uploads.push(entry);
  }
  showDocuments();
  if (uploading) return;
  uploading = true;
  for (let entry = uploads.shift(); entry; entry = uploads.shift()) await upload(entry);
  uploading = false;
}

async function upload(entry) {
  if (!state.documents.includes(entry)) return;
  entry.stop = new AbortController();
  entry.failure = null;
  entry.progress = { words: "Sending it to the server…" };
  showDocument(entry);
  announce(`${entry.name} is being read`);
  try {
    await whenReady();
    entry.stop.signal.throwIfAborted();
    const body = new FormData();
    body.append("file", entry.file);
    const headers = { Accept: "text/event-stream" };
    const response = await call("/v1/documents", { method: "POST", body, headers, signal: entry.stop.signal });
    finishUpload(entry, await documentOf(response, entry));
  } catch (error) {
    entry.failure = sentenceOf(error, entry.stop.signal);
    entry.progress = null;
    if (entry.failure === null) return leaveOut(entry);
    announce(`${entry.name}: ${entry.failure}`);
    showDocument(entry);
  }
}

async function documentOf(response, entry) {
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) return response.json();
  for await (const event of eventsOf(response)) {
    if (event.stage === "done") return event.document;
    entry.progress = progressOf(event);
    announceProgress(entry, entry.name);
    showDocument(entry);
  }
  throw new Failure("The server broke off while it read. See its log, and try again.");
}

function progressOf({ stage, done, total, seconds_left: left }) {
  const unit = stage === "reading" ? "page" : "token";
  const verb = stage === "reading" ? "Reading the pages" : "The model is reading";
  const far = total ? `${figures.format(done)} of ${count(total, unit)}` : count(done, unit);
  return { words: `${verb}: ${far}${timeLeft(left)}`, done, total };
}

/** Says each quarter of the way once, for those who hear the page. */
function announceProgress(holder, name) {
  const { done, total, words } = holder.progress;
  const quarter = total ? Math.floor((4 * done) / total) : 0;
  if (quarter && quarter !== holder.quarter) announce(`${name}. ${words}`);
  holder.quarter = quarter;
}

function finishUpload(entry, document) {
  state.kept = state.kept.filter((kept) => kept.id !== document.id);
  state.documents = state.documents.filter((other) => other === entry || other.document?.id !== document.id);
  Object.assign(entry, { document, name: document.filename, progress: null, file: null });
  announce(`${entry.name} is read: ${count(document.n_pages, "page")}. Ask about it.`);
  showDocuments();
  keepConversation();
  if (!state.documents.some((other) => other.progress || other.failure)) $("question").focus();
}

function opened(document, asked = true) {
  state.kept = state.kept.filter((kept) => kept.id !== document.id);
  state.documents.push({ document, name: document.filename, asked });
}

function leaveOut(entry) {
  const focused = [entry.node, $("reading")].some((node) => node?.contains(document.activeElement));
  entry.stop?.abort();
  state.documents = state.documents.filter((other) => other !== entry);
  if (entry.document) state.kept.unshift(entry.document);
  if (entry.document && viewed?.document.id === entry.document.id) closeViewer();
  showDocuments();
  keepConversation();
  if (focused) focusDocuments();
}

/** Where the keyboard goes on from when what it was on is gone. */
function focusDocuments() {
  ($("welcome").hidden ? $("add-document") : $("choose")).focus();
}

async function deleteDocument(found, row) {
  $("delete-name").textContent = found.filename;
  const dialog = $("delete-dialog");
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "delete") return;
  try {
    await call(`/v1/documents/${encodeURIComponent(found.id)}`, { method: "DELETE" });
  } catch (error) {
    row.append(problem(error.message, "Try again", () => { row.querySelector(".problem").remove(); deleteDocument(found, row); }));
    return;
  }
  if (viewed?.document.id === found.id) closeViewer();
  state.kept = state.kept.filter((kept) => kept.id !== found.id);
  state.documents = state.documents.filter((entry) => entry.document?.id !== found.id);
  announce(`${found.filename} is deleted`);
  showDocuments();
  keepConversation();
  focusDocuments();
}

function showDocuments() {
  const nodes = state.documents.map((entry) => {
    entry.node ??= element("li", { class: "document" });
    showDocument(entry);
    return entry.node;
  });
  $("opened").replaceChildren(...nodes);
  for (const section of document.querySelectorAll(".kept")) {
    section.hidden = !state.kept.length;
    section.querySelector("ul").replaceChildren(...state.kept.map(keptRow));
  }
  document.body.classList.toggle("has-documents", state.documents.length > 0 || state.turns.length > 0);
  showReadiness();
}

function showDocument(entry) {
  showReading();
  if (!entry.node) return;
  if (entry.progress && entry.bar?.isConnected) return updateProgress(entry);
  entry.bar = null;
  entry.node.replaceChildren(...(entry.document ? readRow(entry) : unreadRow(entry)));
  showReadiness();
}

function readRow(entry) {
  const { document: read } = entry;
  const box = element("input", { type: "checkbox", "aria-label": `Ask ${read.filename}`, title: "Ask this document" });
  box.checked = entry.asked;
  box.addEventListener("change", () => { entry.asked = box.checked; showReadiness(); keepConversation(); });
  const name = element("button", { type: "button", class: "name", title: `Look at ${read.filename}` }, element("bdi", {}, read.filename));
  name.addEventListener("click", () => view({ document: read, page: 1 }, name));
  return [
    element("div", { class: "name-line" }, box, name),
    underName(read,
      iconButton("close", `Take ${read.filename} out of the conversation`, () => leaveOut(entry)),
      iconButton("delete", `Delete ${read.filename}`, () => deleteDocument(read, entry.node))),
    notesOf(read) ?? "",
  ];
}

function unreadRow(entry) {
  const name = element("p", { class: "name" }, element("bdi", {}, entry.name));
  const away = iconButton("close", entry.failure ? `Put ${entry.name} away` : `Stop reading ${entry.name}`, () => leaveOut(entry));
  const line = element("div", { class: "name-line" }, name, away);
  if (entry.failure) return [line, problem(entry.failure, "Try again", () => retryUpload(entry))];
  entry.bar = element("progress", { "aria-label": `Reading ${entry.name}` });
  entry.barWords = element("p", { class: "small quiet" });
  updateProgress(entry);
  return [line, entry.bar, entry.barWords];
}

function updateProgress(entry) {
  fillBar(entry.bar, entry.progress);
  entry.barWords.textContent = entry.progress?.words ?? "Waits for its turn";
}

/** What is being read or couldn't be: large where there is no conversation yet, and a word on the button of narrow screens. */
function showReading() {
  const failed = state.documents.filter((entry) => entry.failure);
  const coming = state.documents.filter((entry) => !entry.document && !entry.failure);
  $("documents-count").textContent = documentsInWords(failed.length, coming.length);
  const entry = failed[0] ?? coming[0];
  $("reading").hidden = !entry || state.turns.length > 0;
  if ($("reading").hidden) return;
  if (shownReading.entry !== entry || shownReading.failure !== entry.failure) {
    $("reading").replaceChildren(...(entry.failure ? unreadWords(entry) : comingWords(entry)));
    shownReading = { entry, failure: entry.failure };
  }
  if (entry.failure) return;
  fillBar($("reading").querySelector("progress"), entry.progress);
  $("reading").querySelector("p").textContent = entry.progress?.words ?? "Waits for its turn";
}

let shownReading = {};

function documentsInWords(failed, coming) {
  if (failed) return `${failed} not read`;
  if (coming) return `Reading ${coming}…`;
  return state.documents.length ? count(state.documents.length, "document") : "Documents";
}

function unreadWords(entry) {
  const words = problem(entry.failure, "Try again", () => retryUpload(entry));
  words.removeAttribute("role"); // the row of the document says it already
  return [element("h2", {}, "Not read: ", element("bdi", {}, entry.name)), words];
}

function comingWords(entry) {
  const stop = plainButton("Stop", () => leaveOut(entry));
  return [
    element("h2", {}, "Reading ", element("bdi", {}, entry.name)),
    element("progress", { "aria-label": "Progress" }),
    element("div", { class: "row" }, element("p", { class: "quiet" }), stop),
  ];
}

function fillBar(bar, progress) {
  if (progress?.total) {
    bar.max = progress.total;
    bar.value = progress.done;
  } else {
    bar.removeAttribute("value");
  }
}

async function retryUpload(entry) {
  state.documents = state.documents.filter((other) => other !== entry);
  await addFiles([entry.file]);
}

function keptRow(kept) {
  const row = element("li", { class: "document" });
  const open = element("button", { type: "button", class: "plain", "aria-label": `Open ${kept.filename}` }, "Open");
  open.addEventListener("click", () => {
    opened(kept);
    showDocuments();
    keepConversation();
    announce(`${kept.filename} is open`);
    $("question").focus();
  });
  row.append(
    element("p", { class: "name" }, element("bdi", {}, kept.filename)),
    underName(kept, open, iconButton("delete", `Delete ${kept.filename}`, () => deleteDocument(kept, row))),
  );
  return row;
}

function underName(read, ...actions) {
  const size = element("p", { class: "small quiet" }, sizeOf(read));
  return element("div", { class: "under-name" }, size, element("div", { class: "actions" }, ...actions));
}

function sizeOf({ n_pages: pages, tokens }) {
  return `${onOneLine(count(pages, "page"))} · ${onOneLine(count(tokens, "token"))}`;
}

function notesOf({ notes }) {
  if (!notes?.length) return null;
  const lines = notes.map((note) => element("li", { dir: "auto" }, note));
  return element("details", { class: "small notes" }, element("summary", {}, `${count(notes.length, "note")} on the reading`),
    element("ul", {}, ...lines));
}

function problem(sentence, label, onclick) {
  const words = element("p", { class: "problem-words", dir: "auto" }, sentence);
  return element("div", { class: "problem", role: "alert" }, words, label && plainButton(label, onclick));
}

function invitation(asked, read) {
  if (asked) return asked === 1 ? "Ask this document" : `Ask ${count(asked, "document")}`;
  return read ? "Ask the model (no document is ticked)" : "Ask the model";
}

/** What depends on which documents are asked: the hint, the room that is left, whether one can begin. */
function showReadiness() {
  showReading();
  const read = state.documents.filter((entry) => entry.document);
  const asked = read.filter((entry) => entry.asked);
  const tokens = asked.reduce((sum, entry) => sum + entry.document.tokens, 0);
  const room = state.model?.selfextend?.n_ctx;
  $("room").hidden = !read.length || !room;
  if (room) {
    Object.assign($("room-meter"), { max: room, high: room * 0.999, optimum: 0, value: Math.min(tokens, room) });
    const over = tokens > room ? " More than fits: untick a document, or start the server with a larger --need-tokens." : "";
    $("room-words").textContent = `${figures.format(tokens)} of ${onOneLine(count(room, "token"))} taken by the ticked documents.${over}`;
  }
  $("question").placeholder = invitation(asked.length, read.length);
  $("welcome").hidden = state.documents.length > 0 || state.turns.length > 0;
  $("starters").hidden = !asked.length || state.turns.length > 0 || read.length < state.documents.length;
  const [first, ...others] = asked;
  $("starters-title").replaceChildren(others.length ? `${count(asked.length, "document")} are read` : element("bdi", {}, first?.name ?? ""));
  $("new-conversation").hidden = !state.turns.length;
}

// ---- text of the model, made safe: paragraphs, lists, tables, emphasis and code, by nodes alone ----

const FENCE = /^\s*(`{3,}|~{3,})/;
const ITEM = /^(\s*)([-*+•]|\d{1,3}[.)])\s+(.*)$/;
const HEADING = /^#{1,6}\s+/;
const RULE = /^\s*(?:\|\s*)?(?::?-{2,}:?\s*\|\s*)+(?::?-{2,}:?\s*)?$/;

/** The blocks of a text: {kind, lines}. A block that has an end stays as it is while the text grows. */
function blocksOf(text) {
  const lines = text.split("\n");
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    const kind = kindAt(lines, at);
    const from = at;
    if (kind === "code") {
      const fence = FENCE.exec(lines[at])[1];
      for (at += 1; at < lines.length && !lines[at].trim().startsWith(fence); ) at += 1;
      at += 1;
    } else {
      for (at += 1; at < lines.length && goesOn(kind, lines, at); ) at += 1;
    }
    if (kind !== "gap") blocks.push({ kind, lines: lines.slice(from, at) });
  }
  return blocks;
}

function kindAt(lines, at) {
  const line = lines[at];
  if (!line.trim()) return "gap";
  if (FENCE.test(line)) return "code";
  if (HEADING.test(line)) return "heading";
  if (ITEM.test(line)) return "list";
  if (line.includes("|") && RULE.test(lines[at + 1] ?? "")) return "table";
  if (line.startsWith(">")) return "quote";
  return "paragraph";
}

function goesOn(kind, lines, at) {
  const next = kindAt(lines, at);
  if (kind === "heading" || kind === "gap") return next === "gap" && kind === "gap";
  if (kind === "list" && next === "gap") return ITEM.test(lines[at + 1] ?? "");
  if (kind === "list") return next === "list" || (next === "paragraph" && /^\s+/.test(lines[at]));
  if (kind === "table") return lines[at].includes("|");
  return next === kind;
}

function drawn({ kind, lines }, marks) {
  if (kind === "code") {
    const body = lines.slice(1, FENCE.test(lines.at(-1)) && lines.length > 1 ? -1 : undefined);
    return element("pre", { tabindex: "0", dir: "ltr" }, element("code", {}, unmarked(body.join("\n"), marks)));
  }
  if (kind === "heading") return element("h3", { dir: "auto" }, ...inline(headingIn(lines[0]), marks));
  if (kind === "list") return listOf(lines, marks);
  if (kind === "table") return tableOf(lines, marks);
  const text = kind === "quote" ? lines.map((line) => line.replace(/^>\s?/, "")) : lines;
  return element(kind === "quote" ? "blockquote" : "p", { dir: "auto" }, ...inline(text.join("\n"), marks));
}

function headingIn(line) {
  const from = HEADING.exec(line)[0].length;
  let end = line.length;
  while (end > from && "# \t".includes(line[end - 1])) end -= 1;
  return line.slice(from, end);
}

function listOf(lines, marks) {
  const levels = []; // {indent, list}
  let item = null;
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (!found) {
      if (line.trim() && item) item.append("\n", ...inline(line.trim(), marks));
      continue;
    }
    const indent = found[1].length;
    while (levels.length > 1 && indent < levels.at(-1).indent) levels.pop();
    if (!levels.length || indent > levels.at(-1).indent + 1) {
      const first = parseInt(found[2], 10); // NaN for a bullet
      const list = element(first >= 0 ? "ol" : "ul", { start: first >= 0 && first !== 1 && first, dir: "auto" });
      item?.append(list);
      levels.push({ indent, list });
    }
    item = element("li", { dir: "auto" }, ...inline(found[3], marks));
    levels.at(-1).list.append(item);
  }
  return levels[0].list;
}

function tableOf(lines, marks) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (tag, line) => element("tr", {}, ...cells(line).map((cell) => element(tag, { dir: "auto" }, ...inline(cell, marks))));
  const head = element("thead", {}, row("th", lines[0]));
  const body = element("tbody", {}, ...lines.slice(2).map((line) => row("td", line)));
  return element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table" }, element("table", {}, head, body));
}

const MARKED = /`([^`\n]+)`|\*\*(?=\S)([^*]+?)\*\*|(?<![\w*])\*(?=\S)([^*\n]+?)\*(?![\w*])/g;

function inline(text, marks) {
  const nodes = [];
  let at = 0;
  for (const found of text.matchAll(MARKED)) {
    nodes.push(...withReferences(text.slice(at, found.index), marks));
    if (found[1] !== undefined) nodes.push(element("code", {}, unmarked(found[1], marks)));
    else if (found[2] !== undefined) nodes.push(element("strong", {}, ...withReferences(found[2], marks)));
    else nodes.push(element("em", {}, ...withReferences(found[3], marks)));
    at = found.index + found[0].length;
  }
  nodes.push(...withReferences(text.slice(at), marks));
  return nodes;
}

/** What citations stand for, by their places: a page's name is shown as a button, a sentence that a page bears out has one behind it. */
function marksOf(characters, citations) {
  const marks = [];
  for (const citation of citations) {
    const { start, end, named } = citation;
    const same = marks.find((mark) => mark.start === start && mark.end === end);
    const said = characters.slice(start, end).join("");
    if (same) same.citations.push(citation);
    else if (named) marks.push({ start, end, source: said, at: start, citations: [citation] });
    else marks.push({ start, end, source: "", at: start + [...said.trimEnd()].length, citations: [citation] });
  }
  return marks;
}

/** The text with a mark, `START number END`, for each citation. */
function withMarks(characters, marks) {
  let marked = "";
  let at = 0;
  for (const [number, mark] of [...marks.entries()].sort(([, a], [, b]) => a.at - b.at)) {
    marked += characters.slice(at, mark.at).join("") + `${START}${number}${END}`;
    at = mark.source ? mark.end : mark.at;
  }
  return marked + characters.slice(at).join("");
}

// What stands for a citation while a text is parsed: of Unicode's private use, so no text needs them.
const START = "\ue000";
const END = "\ue001";
const MARK = /\ue000(\d+)\ue001/g;

/** The text with a button for each page that it names. */
function withReferences(text, marks) {
  if (!text) return [];
  if (!marks?.length) return [text];
  const nodes = [];
  let at = 0;
  for (const found of text.matchAll(MARK)) {
    nodes.push(text.slice(at, found.index), ...referencesAt(marks[Number(found[1])]));
    at = found.index + found[0].length;
  }
  nodes.push(text.slice(at));
  return nodes.filter((node) => node !== "");
}

/** The text as the model wrote it. */
function unmarked(text, marks) {
  return marks?.length ? text.replace(MARK, (_, number) => marks[Number(number)].source) : text;
}

function referencesAt({ source, citations }) {
  const spaced = source ? [] : [" "];
  return [...spaced, ...citations.flatMap((citation, place) => (place ? [" ", referenceTo(citation)] : [referenceTo(citation)]))];
}

function referenceTo(citation) {
  const shown = `page ${citation.label}`;
  const kind = citation.verified ? "reference true" : "reference";
  if (!citation.page) return element("span", { class: kind, title: statusOf(citation) }, shown);
  const button = element("button", { type: "button", class: kind, title: statusOf(citation) }, shown);
  button.addEventListener("click", () => viewCitation(citation, button));
  return button;
}

/** Shows a text in `holder`; what didn't change of it stays, with the reader's selection. */
function showText(holder, text, citations = []) {
  const plain = text.replaceAll(/[\ue000\ue001]/g, "\ufffd");
  const characters = [...plain]; // the server counts characters, not UTF-16 units
  const marks = marksOf(characters, citations);
  const blocks = blocksOf(withMarks(characters, marks));
  const sources = blocks.map((block) => `${block.kind}\n${block.lines.join("\n")}`);
  const before = marks.length ? [] : holder.sources ?? [];
  let same = 0;
  while (same < sources.length && sources[same] === before[same]) same += 1;
  while (holder.childNodes.length > same) holder.lastChild.remove();
  holder.append(...blocks.slice(same).map((block) => drawn(block, marks)));
  holder.sources = sources;
}

// ---- questions and answers ----

function addTurn(turn) {
  state.turns.push(turn);
  turn.node = element("article", { class: "turn" });
  $("log").append(turn.node);
  return turn;
}

function showTurn(turn) {
  const number = state.turns.indexOf(turn) + 1;
  turn.node.setAttribute("aria-label", `Question ${number}`);
  const question = element("p", { class: "question", dir: "auto" }, turn.question);
  turn.node.replaceChildren(element("h2", { class: "unseen" }, "You asked"), question, element("h2", { class: "unseen" }, "Answer"));
  const answer = element("div", { class: "answer" });
  if (turn.thoughts) answer.append(thoughtsOf(turn));
  const text = element("div", { class: "text" });
  showText(text, turn.answer ?? "", turn.citations);
  answer.append(text);
  if (turn.citations?.length) answer.append(sourcesOf(turn));
  if (turn.looked?.length) answer.append(lookedAt(turn));
  if (turn.remark) answer.append(element("p", { class: "small quiet remark" }, turn.remark));
  if (turn.failure) answer.append(problem(turn.failure, turn === state.turns.at(-1) && "Try again", () => again(turn)));
  else answer.append(footOf(turn));
  turn.node.append(answer);
}

function thoughtsOf(turn) {
  const text = element("div", { class: "text" });
  showText(text, turn.thoughts);
  return element("details", { class: "small thoughts" }, element("summary", {}, "What the model thought first"), text);
}

function footOf(turn) {
  const foot = element("div", { class: "foot" });
  if (navigator.clipboard && turn.answer) {
    const copy = element("button", { type: "button", class: "plain" }, "Copy");
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(turn.answer);
      announce("The answer is copied");
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 2000);
    });
    foot.append(copy);
  }
  if (turn === state.turns.at(-1)) foot.append(plainButton("Ask again", () => again(turn)));
  if (turn.used) foot.append(element("span", { class: "small quiet" }, turn.used));
  return foot;
}

const STATUS = {
  "verified": "The page says so",
  "page found, quote not on it": "The quote isn't on this page",
  "no such page": "There is no such page",
};

function statusOf(citation) {
  return STATUS[citation.verified ? "verified" : citation.status] ?? "Not verified: read the page yourself";
}

function nameOf(id) {
  const entry = state.documents.find((one) => one.document?.id === id);
  return entry?.document ?? state.kept.find((kept) => kept.id === id) ?? null;
}

function sourcesOf(turn) {
  const several = turn.asked.length > 1;
  const seen = new Set();
  const items = turn.citations.filter((citation) => {
    const key = JSON.stringify([citation.document_id, citation.label, citation.quote, citation.status]);
    return !seen.has(key) && seen.add(key);
  }).map((citation) => sourceOf(citation, several));
  return element("section", { class: "sources", "aria-label": "Pages named in the answer" }, element("ul", {}, ...items));
}

function sourceOf(citation, several) {
  const found = nameOf(citation.document_id);
  const [kind, sign] = citation.verified ? ["status true", "true"] : ["status", "open-question"];
  const status = element("span", { class: kind }, icon(sign), statusOf(citation));
  const where = `Page ${citation.label ?? citation.page}`;
  const name = several && found ? element("bdi", { class: "quiet" }, found.filename) : null;
  const head = element("span", { class: "source-head" }, element("strong", {}, where), name, status);
  if (!citation.page) return element("li", {}, element("div", { class: "source" }, head));
  const quote = citation.quote && element("q", { dir: "auto" }, citation.quote);
  const button = element("button", { type: "button", class: "source" }, head, quote);
  button.addEventListener("click", () => viewCitation(citation, button));
  return element("li", {}, button);
}

/** The pages that the model looked at most for the question, in a line. */
function lookedAt(turn) {
  const several = turn.asked.length > 1;
  const pages = turn.looked.flatMap((looked, place) => {
    const button = element("button", { type: "button" }, `page ${looked.label}`);
    button.addEventListener("click", () => viewCitation(looked, button));
    const name = several && nameOf(looked.document_id)?.filename;
    return [place ? ", " : "", button, ...(name ? [" of ", element("bdi", {}, name)] : [])];
  });
  return element("p", { class: "small quiet looked" }, "For this question the model looked at ", ...pages);
}

async function again(turn) {
  if (state.answering) return;
  const place = state.turns.indexOf(turn);
  for (const gone of state.turns.splice(place)) gone.node.remove();
  await ask(turn.question);
}

async function ask(question) {
  state.answering = new AbortController();
  const before = state.turns.at(-1);
  const turn = addTurn({ question, answer: "", thoughts: "", running: true, asked: [] });
  if (before) showTurn(before);
  showReadiness();
  document.body.classList.add("has-documents", "answering");
  $("send").hidden = true;
  $("stop").hidden = false;
  const shown = showComing(turn);
  stick(true);
  try {
    await whenReady();
    await answer(turn, shown, state.answering.signal);
  } catch (error) {
    const sentence = sentenceOf(error, state.answering.signal);
    if (sentence === null) turn.remark = "You stopped this answer.";
    else turn.failure = sentence;
  }
  finish(turn);
}

function showComing(turn) {
  showTurn(turn);
  const holder = turn.node.querySelector(".answer");
  holder.setAttribute("aria-busy", "true");
  const bar = element("progress", { "aria-label": "Reading before the answer" });
  const words = element("p", { class: "small quiet" }, "Asking…");
  const coming = element("div", { class: "coming" }, bar, words);
  const thoughts = thoughtsOf({ thoughts: "" });
  thoughts.hidden = true;
  const text = holder.querySelector(".text");
  holder.replaceChildren(thoughts, text, coming);
  return { bar, words, coming, thoughts, text };
}

function messagesWith(question) {
  const messages = [];
  for (const turn of state.turns) {
    if (turn.running || turn.failure || !turn.answer) continue;
    messages.push({ role: "user", content: turn.question }, { role: "assistant", content: turn.answer });
  }
  return [...messages, { role: "user", content: question }];
}

async function answer(turn, shown, signal) {
  const asked = state.documents.filter((entry) => entry.document && entry.asked).map((entry) => entry.document.id);
  turn.asked = asked;
  const request = {
    model: state.model.id,
    messages: messagesWith(turn.question),
    stream: true,
    stream_options: { include_usage: true },
    return_progress: true,
    ...(asked.length ? { document_ids: asked } : {}),
  };
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request), signal };
  const response = await call("/v1/chat/completions", options);
  let finished = false;
  for await (const chunk of eventsOf(response)) {
    takeIn(turn, chunk, shown);
    finished ||= Boolean(chunk.choices?.[0]?.finish_reason);
  }
  if (!finished) throw new Failure("The server broke off in the middle of the answer. See its log, and try again.");
}

function takeIn(turn, chunk, shown) {
  if (chunk.prompt_progress) showPromptProgress(turn, chunk.prompt_progress, shown);
  const choice = chunk.choices?.[0];
  turn.thoughts += choice?.delta?.reasoning_content ?? "";
  turn.answer += choice?.delta?.content ?? "";
  if (choice?.delta?.content || choice?.delta?.reasoning_content) later(turn, shown);
  if (chunk.citations) turn.citations = chunk.citations;
  if (chunk.looked_at) turn.looked = chunk.looked_at;
  if (choice?.finish_reason) turn.remark = remarkOn(choice.finish_reason, chunk.selfextend?.stop_reason);
  if (chunk.usage) turn.used = usedOf(chunk.usage);
}

function remarkOn(finish, stop) {
  if (stop === "loop") return "The answer began to go round in circles and was stopped. Ask in other words.";
  if (stop === "context") return "The context is full: begin a new conversation, or untick a document.";
  return finish === "length" ? "The answer reached its greatest length." : "";
}

function usedOf({ prompt_tokens: all, prompt_tokens_details: details }) {
  const cached = details?.cached_tokens ?? 0;
  return cached ? `${count(all, "token")} in view, ${figures.format(all - cached)} of them new` : `${count(all, "token")} read`;
}

function showPromptProgress(turn, { total, cache, processed, seconds_left: left }, shown) {
  const kept = cache ? ` (${figures.format(cache)} known from before)` : "";
  const far = `${figures.format(processed)} of ${count(total, "token")}`;
  turn.progress = { done: processed, total, words: `The model is reading: ${far}${kept}${timeLeft(left)}` };
  fillBar(shown.bar, turn.progress);
  shown.words.textContent = turn.progress.words;
  announceProgress(turn, "Before the answer");
}

/** Shows what came, once for each picture that the browser draws. */
function later(turn, shown) {
  if (turn.awaited) return;
  turn.awaited = requestAnimationFrame(() => {
    turn.awaited = 0;
    if (!turn.running) return;
    shown.bar.hidden = true;
    shown.words.textContent = turn.answer ? "Writing…" : "Thinking…";
    shown.thoughts.hidden = !turn.thoughts;
    if (turn.thoughts) showText(shown.thoughts.querySelector(".text"), turn.thoughts);
    showText(shown.text, turn.answer);
    stick();
  });
}

function finish(turn) {
  turn.running = false;
  cancelAnimationFrame(turn.awaited);
  delete turn.awaited;
  state.answering = null;
  document.body.classList.remove("answering");
  $("send").hidden = false;
  $("stop").hidden = true;
  showTurn(turn);
  showDocuments();
  announce(turn.failure || turn.remark || "The answer is complete");
  stick();
  keepConversation();
  if (document.activeElement === document.body) $("question").focus();
}

let atEnd = true;

/** Keeps the end of the conversation in view, unless the reader scrolled away from it. */
function stick(always = false) {
  const scroll = $("scroll");
  if (always || atEnd) scroll.scrollTop = scroll.scrollHeight;
}

// ---- the page that an answer names ----

let viewed = null; // {document, page, quote, verified, opener}
let drawing = null;
let zoom = 1;
let asText = false;

async function viewCitation(citation, opener) {
  let found = nameOf(citation.document_id);
  try {
    found ??= await (await call(`/v1/documents/${encodeURIComponent(citation.document_id)}`)).json();
  } catch (error) {
    opener.closest(".answer, .turn").append(problem(error.message));
    return;
  }
  await view({ document: found, page: citation.page, citation }, opener);
}

async function view(wanted, opener) {
  viewed = { ...wanted, opener };
  zoom = 1;
  closeDocuments();
  $("viewer").hidden = false;
  document.body.classList.add("viewing");
  shieldRest();
  for (const current of document.querySelectorAll("[aria-current]")) current.removeAttribute("aria-current");
  if (wanted.citation) opener.setAttribute("aria-current", "true");
  $("viewer-title").textContent = wanted.document.filename;
  $("viewer-title").focus();
  await showPage();
}

async function showPage() {
  const { document: shown, page, citation } = viewed;
  drawing?.abort();
  drawing = new AbortController();
  const { signal } = drawing;
  const quote = citation?.page === page ? citation.quote : null;
  $("viewer-where").textContent = pageName(shown, page);
  $("viewer-quote").hidden = !quote;
  $("viewer-quote").querySelector("blockquote").textContent = quote ?? "";
  $("viewer-quote").querySelector("figcaption").textContent = quote ? statusOf(citation) : "";
  $("viewer-quote").classList.toggle("true", Boolean(quote && citation.verified));
  $("page-before").disabled = page <= 1;
  $("page-after").disabled = page >= shown.n_pages;
  for (const tool of document.querySelectorAll(".for-picture")) tool.hidden = !shown.has_pictures;
  $("as-text").setAttribute("aria-pressed", String(asText));
  for (const tool of [$("smaller"), $("larger")]) tool.disabled = asText || !shown.has_pictures;
  $("smaller").disabled ||= zoom <= 1;
  $("larger").disabled ||= zoom >= 3;
  $("viewer-body").setAttribute("aria-busy", "true");
  try {
    const drawn = shown.has_pictures && !asText ? await pictureOf(shown, page, quote, signal) : await textOf(shown, page, quote, signal);
    if (signal.aborted) return;
    replacePage(drawn);
  } catch (error) {
    const sentence = sentenceOf(error, signal);
    if (sentence !== null) replacePage({ node: problem(sentence, "Try again", showPage), marked: null });
  }
}

function replacePage({ node, marked }) {
  const body = $("viewer-body");
  for (const picture of body.querySelectorAll("img")) URL.revokeObjectURL(picture.src);
  body.replaceChildren(node);
  body.removeAttribute("aria-busy");
  if (marked === false) body.prepend(element("p", { class: "small quiet" }, "The passage wasn't found on this page: read it yourself."));
  const mark = body.querySelector("mark");
  if (mark) mark.scrollIntoView({ block: "center" });
  else body.scrollTop = 0;
  announce($("viewer-where").textContent + (marked ? ", the passage is marked" : ""));
}

async function pictureOf(shown, page, quote, signal) {
  const width = Math.round(Math.min(2400, Math.max(600, $("viewer-body").clientWidth * zoom * devicePixelRatio)));
  const query = new URLSearchParams({ width, ...(quote ? { find: quote } : {}) });
  const response = await call(`/v1/documents/${encodeURIComponent(shown.id)}/pages/${page}.png?${query}`, { signal });
  const marked = quote ? response.headers.get("X-Marked") === "1" : null;
  const picture = element("img", { alt: `${pageName(shown, page)} of ${shown.filename}${marked ? ", with the passage marked" : ""}` });
  picture.src = URL.createObjectURL(await response.blob());
  picture.style.width = `${100 * zoom}%`;
  await picture.decode();
  return { node: picture, marked };
}

async function textOf(shown, page, quote, signal) {
  const { text } = await (await call(`/v1/documents/${encodeURIComponent(shown.id)}/pages/${page}`, { signal })).json();
  const paragraphs = text.split(/\n{2,}/).filter((part) => part.trim());
  if (!paragraphs.length) return { node: element("p", { class: "quiet" }, "This page has no text."), marked: null };
  const wanted = quote ? passage(quote) : null;
  const nodes = paragraphs.map((part) => element("p", { dir: "auto" }, ...withMark(part, wanted)));
  const marked = quote ? nodes.some((node) => node.querySelector("mark")) : null;
  return { node: element("div", { class: "page-text" }, ...nodes), marked };
}

/** What finds a passage in a text, whatever stands between its words. */
function passage(quote) {
  const words = quote.match(/[\p{L}\p{M}\p{N}]+/gu);
  return words ? new RegExp(words.join("[^\\p{L}\\p{N}]+"), "giu") : null;
}

function withMark(text, wanted) {
  const nodes = [];
  let at = 0;
  for (const found of wanted ? text.matchAll(wanted) : []) {
    nodes.push(text.slice(at, found.index), element("mark", {}, found[0]));
    at = found.index + found[0].length;
  }
  return [...nodes, text.slice(at)];
}

function turnPage(by) {
  viewed.page += by;
  showPage();
}

function zoomBy(step) {
  zoom = Math.min(3, Math.max(1, zoom + step));
  showPage();
}

function closeViewer() {
  if (!viewed) return;
  const { opener } = viewed;
  drawing?.abort();
  viewed = null;
  $("viewer").hidden = true;
  document.body.classList.remove("viewing");
  for (const current of document.querySelectorAll("[aria-current]")) current.removeAttribute("aria-current");
  shieldRest();
  (opener.isConnected ? opener : $("question")).focus();
}

// ---- what lies over the rest on narrow screens ----

function openDocuments() {
  document.body.classList.add("listing");
  $("documents-toggle").setAttribute("aria-expanded", "true");
  shieldRest();
  $("add-document").focus();
}

function closeDocuments() {
  document.body.classList.remove("listing");
  $("documents-toggle").setAttribute("aria-expanded", "false");
  shieldRest();
}

/** On a narrow screen, what is covered can't be reached by keyboard either. */
function shieldRest() {
  const narrow = NARROW.matches;
  const covered = narrow && viewed !== null;
  const listing = narrow && document.body.classList.contains("listing");
  document.querySelector("header").inert = covered;
  $("documents").inert = covered || (narrow && !listing);
  $("conversation").inert = covered || listing;
}

// ---- what the user does ----

function submit() {
  const question = $("question").value.trim();
  if (!question || state.answering) return;
  $("question").value = "";
  fitQuestion();
  ask(question);
}

function fitQuestion() {
  const field = $("question");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, innerHeight * 0.4)}px`;
}

function newConversation() {
  state.answering?.abort();
  for (const turn of state.turns.splice(0)) turn.node.remove();
  closeViewer();
  showDocuments();
  keepConversation();
  announce("A new conversation");
  $("question").focus();
}

function listenToDrops() {
  const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let inside = 0;
  const hint = (shown) => { $("drop-hint").hidden = !shown; };
  addEventListener("dragenter", (event) => { if (holdsFiles(event)) hint((inside += 1) > 0); });
  addEventListener("dragleave", (event) => { if (holdsFiles(event)) hint((inside = Math.max(0, inside - 1)) > 0); });
  addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    hint((inside = 0) > 0);
    addFiles([...event.dataTransfer.files]);
  });
}

function listen() {
  $("ask").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  $("question").addEventListener("input", fitQuestion);
  $("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  $("stop").addEventListener("click", () => { state.answering?.abort(); $("question").focus(); });
  for (const id of ["choose", "attach", "add-document"]) $(id).addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => { addFiles([...$("files").files]); $("files").value = ""; });
  $("key-cancel").addEventListener("click", () => $("key-dialog").close(""));
  $("new-conversation").addEventListener("click", newConversation);
  $("documents-toggle").addEventListener("click", () => (document.body.classList.contains("listing") ? closeDocuments() : openDocuments()));
  $("conversation").addEventListener("pointerdown", closeDocuments);
  $("scroll").addEventListener("scroll", () => {
    const { scrollTop, clientHeight, scrollHeight } = $("scroll");
    atEnd = scrollTop + clientHeight > scrollHeight - 40;
  });
  $("page-before").addEventListener("click", () => turnPage(-1));
  $("page-after").addEventListener("click", () => turnPage(1));
  $("smaller").addEventListener("click", () => zoomBy(-0.5));
  $("larger").addEventListener("click", () => zoomBy(0.5));
  $("as-text").addEventListener("click", () => { asText = !asText; showPage(); });
  $("viewer-close").addEventListener("click", closeViewer);
  NARROW.addEventListener("change", shieldRest);
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    if (viewed) closeViewer();
    else if (document.body.classList.contains("listing")) { closeDocuments(); $("documents-toggle").focus(); }
    else state.answering?.abort();
  });
  for (const question of STARTERS) {
    const button = element("button", { type: "button", onclick: () => ask(question) }, question);
    $("starters").querySelector("ul").append(element("li", {}, button));
  }
  listenToDrops();
}

listen();
shieldRest();
showReadiness();
whenReady().catch(() => {});
