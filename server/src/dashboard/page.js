// The dashboard: asks the server every two seconds, and shows what it said.

import { Charts } from "./charts.js";
import { ago, bytes, count, duration, many, path, percent, rate } from "./words.js";

const EVERY_MS = 2000;
const AFTER_TROUBLE_MS = 5000;
/** How often a screen reader is told anew how things are, at most. */
const SPEAK_EVERY_MS = 20000;
const TOKEN = "pcmcache-token";
const SPANS = { hour: "in the last hour", day: "in the last day", month: "in the last thirty days", year: "in the last year" };

const $ = (id) => document.getElementById(id);
const charts = new Charts($("charts"));
let spokenAt = -Infinity;
let heardAt = null;
let next = null;

// --- asking

const token = () => sessionStorage.getItem(TOKEN);
const span = () => $("spans").elements.span.value;

async function ask() {
  clearTimeout(next);
  const asked = span();
  try {
    const headers = token() ? { authorization: `Bearer ${token()}` } : {};
    const answer = await fetch(`v1/dashboard?span=${asked}`, { headers, signal: AbortSignal.timeout(10000) });
    if (answer.status === 401) return signIn();
    if (!answer.ok) throw new Error(`it answers with ${answer.status}`);
    const state = await answer.json();
    heardAt = performance.now();
    if (asked === span()) show(state);
    later(EVERY_MS);
  } catch (error) {
    trouble(error);
    later(AFTER_TROUBLE_MS);
  }
}

function later(ms) {
  clearTimeout(next);
  // Nobody looks at a page that is hidden; it asks again when it is seen.
  if (!document.hidden) next = setTimeout(ask, ms);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && $("sign-in").hidden) ask();
});
$("spans").addEventListener("change", ask);

// --- tokens

function signIn() {
  const wrong = token() !== null;
  sessionStorage.removeItem(TOKEN);
  $("shown").hidden = $("spans").hidden = $("sign-out").hidden = true;
  $("sign-in").hidden = false;
  $("token-no").textContent = wrong ? "The server does not know this token, or it has ended." : "";
  status("ask", "A token is needed");
  $("token").focus();
}

$("sign-in").querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token").value.trim());
  $("token").value = "";
  ask();
});

$("sign-out").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN);
  location.reload();
});

// --- showing

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function status(state, text) {
  $("status").dataset.state = state;
  set($("status"), text);
}

function trouble(error) {
  const since = heardAt === null ? "" : ` What is shown is ${duration(performance.now() - heardAt)} old.`;
  status("gone", "No answer");
  set($("trouble"), `The server does not answer as it should: ${error.message}.${since}`);
  $("trouble").hidden = false;
}

function show(state) {
  $("trouble").hidden = $("sign-in").hidden = true;
  $("shown").hidden = false;
  $("sign-out").hidden = token() === null;
  $("spans").hidden = $("over").hidden = state.over === null;
  status("live", state.sees === null ? "Live" : `Live, of ${state.sees.join(", ")}`);
  set($("about"), `pcmcache-server ${state.version}, up ${duration(state.up_s * 1000)}`);
  document.body.classList.toggle("one-scope", new Set(state.scopes.map((row) => row.scope)).size < 2);
  const sum = state.over === null ? sumOf(state.scopes) : state.over.total;
  const time = state.over === null ? "since the server started" : SPANS[state.over.span];
  showTiles(state, sum, time);
  showBuilds(state);
  if (state.over !== null) charts.update(state.over);
  rows("missed", state.missed, (row) => [module(row.subject), scope(row), number(count(row.misses))]);
  rows("slowest", state.slowest, (row) => [module(row.subject), scope(row), number(duration(row.wall_ms))]);
  rows("diverged", state.diverged, (row) => [module(row.subject), row.first, row.second, number(ago(row.ago_ms))], (row) => row.action + row.second + row.first);
  rows("scopes", state.scopes, scopeRow);
  if (state.store !== null) showStore(state.store, sum, time);
  $("store").hidden = state.store === null;
  speak(state, sum, time);
}

function sumOf(scopes) {
  const sum = (name) => scopes.reduce((all, row) => all + row[name], 0);
  const names = ["hits", "misses", "saved_ms", "built_ms", "served_bytes", "uploaded_bytes"];
  return Object.fromEntries(names.map((name) => [name, sum(name)]));
}

function showTiles(state, sum, time) {
  set($("rate"), percent(rate(sum.hits, sum.misses)));
  set($("rate-fine"), `${many(sum.hits, "hit", "hits")}, ${many(sum.misses, "miss", "misses")} ${time}`);
  set($("saved"), duration(sum.saved_ms));
  set($("saved-fine"), `${duration(sum.built_ms)} spent on what was published`);
  set($("served"), bytes(sum.served_bytes));
  set($("served-fine"), `${bytes(sum.uploaded_bytes)} uploaded`);
  set($("now"), count(state.builds));
  set($("now-fine"), state.waiting === 0 ? "nobody waits" : `${many(state.waiting, "waits", "wait")} for them`);
}

function showBuilds(state) {
  const building = (row) => [
    module(row.subject || `claim ${row.id.slice(0, 12)}`, row.holder),
    row.holder,
    scope(row),
    elapsed(row),
    waiting(row),
  ];
  rows("building", state.building, building, (row) => row.id);
  const done = (row) => [
    module(row.subject || `claim ${row.id.slice(0, 12)}`, row.holder),
    row.holder,
    scope(row),
    duration(row.took_ms),
    ending(row),
  ];
  rows("finished", state.finished, done, (row) => row.id);
}

/** How long it takes, beside how long it took the last time. */
function elapsed(row) {
  if (row.expected_ms === null) return { text: duration(row.for_ms) };
  const bar = row.for_ms / Math.max(row.expected_ms, 1);
  return { text: duration(row.for_ms), fine: `of about ${duration(row.expected_ms)}`, bar };
}

function waiting(row) {
  if (row.waiting === 0) return "nobody";
  const more = row.waiting - row.waiters.length;
  const named = row.waiters.filter(Boolean).join(", ");
  return { text: count(row.waiting), fine: more > 0 && named ? `${named} and ${count(more)} more` : named };
}

function ending(row) {
  const words = {
    published: { text: "published", mark: "good" },
    released: { text: `given back: ${row.reason}`, mark: row.reason === "failed" ? "bad" : "" },
    lost: { text: "builder lost", mark: "bad" },
  };
  return { ...words[row.how], fine: ago(row.ago_ms) };
}

function scopeRow(row) {
  const stored = row.bytes === null ? "–" : row.quota === null ? bytes(row.bytes) : `${bytes(row.bytes)} of ${bytes(row.quota)}`;
  return [
    row.scope ?? "others, together",
    number(count(row.hits)),
    number(count(row.misses)),
    number(percent(rate(row.hits, row.misses))),
    number(duration(row.saved_ms)),
    number(count(row.published)),
    number(count(row.waited)),
    number(bytes(row.served_bytes)),
    number(stored),
  ];
}

function showStore(store, sum, time) {
  const taken = store.blob_bytes + store.reserved_bytes + store.damaged_bytes;
  const room = store.max_size ?? (store.disk_free === null ? null : taken + Math.max(store.disk_free - store.keep_free, 0));
  const bound = store.max_size === null ? "the disk has room for" : "--max-size is";
  set($("room"), room === null ? `${bytes(taken)} taken.` : `${bytes(taken)} taken; ${bound} ${bytes(room)}.`);
  $("bar").hidden = room === null;
  const share = room ? Math.min(taken / room, 1) : 0;
  $("bar").firstElementChild.style.width = `${100 * share}%`;
  $("bar").dataset.state = share > 0.95 ? "bad" : share > 0.85 ? "care" : "good";
  const facts = [
    ["Results", store.results === null ? "the index does not answer" : count(store.results)],
    ["Blobs", `${count(store.blobs)}, ${bytes(store.blob_bytes)}`],
    ["Being uploaded", bytes(store.reserved_bytes)],
    ["Free on the disk", store.disk_free === null ? "–" : bytes(store.disk_free)],
    ["Evicted", `${many(sum.evicted, "result", "results")}, ${bytes(sum.evicted_bytes)} ${time}`],
    ["Damaged and moved aside", store.damaged_blobs === 0 && store.damaged_bytes === 0 ? "none" : `${count(store.damaged_blobs)}, ${bytes(store.damaged_bytes)}`, store.damaged_blobs + store.damaged_bytes > 0],
    ["Scrubbed", `${bytes(store.scrubbed_bytes)}, ${many(store.scrub_rounds, "round", "rounds")}; ${percent((100 * store.scrub_shard) / 256)} of the next`],
    ["Refused for want of room", store.refused === 0 ? "none" : count(store.refused), store.refused > 0],
  ];
  const list = $("facts");
  facts.forEach(([name, value, bad], index) => {
    const pair = list.children[index] ?? list.appendChild(document.createElement("div"));
    if (!pair.firstElementChild) pair.append(document.createElement("dt"), document.createElement("dd"));
    set(pair.children[0], name);
    set(pair.children[1], value);
    pair.children[1].className = bad ? "bad" : "";
  });
}

/** For who does not see: in a sentence how things are, now and then, and only if it changed. */
function speak(state, sum, time) {
  const now = performance.now();
  if (now - spokenAt < SPEAK_EVERY_MS) return;
  const builds = `${many(state.builds, "build", "builds")} under way, ${count(state.waiting)} waiting`;
  const sentence = `${builds}. Hit rate ${percent(rate(sum.hits, sum.misses))} ${time}.`;
  if ($("spoken").textContent === sentence) return;
  spokenAt = now;
  $("spoken").textContent = sentence;
}

// --- tables: a row stays the same element while it tells of the same thing, so that what is selected stays selected.

const number = (text) => ({ text, number: true });
const scope = (row) => row.scope;

function module(subject, holder) {
  const { name, directory } = path(subject);
  return { text: name, title: subject, fine: directory, strong: true, narrow: holder };
}

function rows(id, items, cells, key = (row) => `${row.scope} ${row.subject ?? ""}`) {
  const table = $(id);
  const region = table.parentElement;
  region.hidden = items.length === 0;
  $(`${id}-none`).hidden = items.length > 0;
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  items.forEach((item, index) => {
    const name = key(item);
    const row = old.get(name) ?? fresh(name, heads);
    old.delete(name);
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
    cells(item).forEach((cell, column) => fill(row.cells[column], cell));
  });
  old.forEach((row) => row.remove());
}

function fresh(name, heads) {
  const row = document.createElement("tr");
  row.dataset.key = name;
  heads.forEach((head, column) => {
    const cell = document.createElement(column === 0 ? "th" : "td");
    if (column === 0) cell.scope = "row";
    cell.className = head.className;
    row.append(cell);
  });
  return row;
}

function fill(cell, said) {
  const { text, fine, title, strong, bar, mark, narrow } = typeof said === "string" ? { text: said } : said;
  const state = JSON.stringify([text, fine, strong, mark, narrow]);
  if (cell.dataset.said !== state) {
    cell.dataset.said = state;
    const main = document.createElement("span");
    main.className = ["main", strong ? "strong" : "", mark ?? ""].join(" ").trim();
    main.textContent = text;
    cell.replaceChildren(main, ...[[fine, "fine"], [narrow, "fine narrow"]].filter(([words]) => words).map(([words, name]) => {
      const small = document.createElement("span");
      small.className = name;
      small.textContent = words;
      return small;
    }));
    if (title) cell.title = title;
  }
  if (bar !== undefined) {
    const track = cell.querySelector(".track") ?? cell.appendChild(document.createElement("span"));
    track.className = bar > 1.5 ? "track late" : "track";
    track.setAttribute("aria-hidden", "true");
    const inside = track.firstElementChild ?? track.appendChild(document.createElement("span"));
    inside.style.width = `${Math.min(100 * bar, 100)}%`;
  }
}

set($("here"), location.origin);
ask();
