// The dashboard: status strip, live table, one record at a time (#/records/<id>).
import { getJson, setToken, watch } from "./api.js";
import { byId, bytes, clock, duration, element, statusClass } from "./dom.js";
import { hide, show } from "./detail.js";
import { ledger } from "./ledger.js";

const MAX_ROWS = 500;
const state = { paused: false, keeps: true, next: null, waiting: 0, stop: null, generation: 0 };
const rows = byId("rows");

const query = () => {
  const form = new FormData(byId("filters"));
  return new URLSearchParams([...form].filter(([, value]) => value !== ""));
};
const chosenId = () => /^#\/records\/([0-9a-f-]{36})$/i.exec(location.hash)?.[1] ?? null;

function notice(text) {
  byId("notice").textContent = text ?? "";
  byId("notice").hidden = !text;
}

function failed(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401) {
    byId("token-form").hidden = false;
    byId("main").hidden = true;
    byId("token").focus();
    state.stop?.abort();
    notice(sessionStorage.length ? "That token was not accepted." : "");
    return;
  }
  notice(error.status ? error.message : "The node cannot be reached.");
}

function row(record) {
  const how = record.method || record.protocol;
  const link = element("a", { href: `#/records/${record.id}` }, record.sealed ? `sealed under ${record.sealed}` : record.target || "–");
  link.title = record.sealed ? `Sealed under the key ${record.sealed}, which is not open here` : `${record.host}${record.target}`;
  if (record.sealed) link.className = "sealed";
  const lacking = record.completeness && record.completeness !== "complete" ? ` ${record.completeness}` : "";
  const line = element("tr", { id: `r-${record.id}` },
    element("td", { className: "time" }, clock(record.started)),
    element("td", { className: "service" }, record.service),
    element("td", { className: "how method" }, how),
    element("td", { className: "target" }, link),
    element("td", { className: `state number ${statusClass(record.status, record.outcome)}` }, `${record.status ?? record.outcome}${lacking}`),
    element("td", { className: "took number" }, duration(record.duration_us)),
    element("td", { className: "size number" }, bytes(record.response_bytes)));
  line.onclick = () => { location.hash = link.hash; };
  return line;
}

function addNewest(records) {
  for (const record of records) {
    if (byId(`r-${record.id}`)) continue;
    rows.prepend(row(record));
    if (rows.children.length > MAX_ROWS) {
      rows.lastElementChild.remove();
      // What fell off the end can be listed again from there.
      state.next = rows.lastElementChild.id.slice(2).replaceAll("-", "");
    }
  }
  settle();
}

function settle() {
  byId("more").hidden = !state.next;
  byId("empty").hidden = rows.children.length > 0 || !state.keeps;
  byId("empty").textContent = query().size > 0 ? "No record fits the filter."
    : "No records yet. Send a request through the proxy, and it shows up here.";
  const chosen = chosenId();
  for (const line of rows.children) line.classList.toggle("chosen", line.id === `r-${chosen}`);
}

async function list() {
  const generation = state.generation;
  const page = await getJson(`/api/records?${query()}`);
  if (generation !== state.generation) return;
  rows.replaceChildren(...page.records.map(row));
  state.next = page.next;
  settle();
}

async function older() {
  const parameters = query();
  parameters.set("cursor", state.next);
  const page = await getJson(`/api/records?${parameters}`);
  rows.append(...page.records.filter((record) => !byId(`r-${record.id}`)).map(row));
  state.next = page.next;
  settle();
}

function live(text, className) {
  byId("live").textContent = text;
  byId("live").className = `live ${className}`;
}

// Lists, then follows; starts anew after a break, a pause, or another filter.
async function follow() {
  state.stop?.abort();
  const stop = state.stop = new AbortController();
  const generation = state.generation += 1;
  for (;;) {
    try {
      await watch(`/api/events?${query()}`, stop.signal, () => {
        live("live", "on");
        notice("");
        list().catch(failed);
      }, (name, data) => {
        if (name === "records") addNewest(data);
        if (name === "skipped") list().catch(failed);
      });
    } catch (error) {
      if (stop.signal.aborted) return;
      if (error.status === 404) live("keeps no records", ""); else live("not connected", "off");
      failed(error);
      if (error.status && error.status < 500) { if (error.status !== 401) list().catch(failed); return; }
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
    if (generation !== state.generation || state.paused) return;
  }
}

function pause() {
  state.paused = !state.paused;
  byId("pause").setAttribute("aria-pressed", String(state.paused));
  byId("pause").textContent = state.paused ? "Resume" : "Pause";
  if (!state.paused) return follow();
  state.generation += 1;
  state.stop?.abort();
  return live("paused", "");
}

async function route() {
  const id = chosenId();
  settle();
  if (!id) return hide();
  const close = () => { location.hash = ""; byId(`r-${id}`)?.querySelector("a").focus(); };
  const gone = (deleted) => { byId(`r-${deleted}`)?.remove(); close(); };
  return show(id, { onClose: close, onDeleted: gone, onFailure: failed }).catch(failed);
}

async function status() {
  const told = await getJson("/api/status");
  const lag = Object.values(told.lag);
  state.keeps = !["Record", "Forward"].includes(told.mode); // a recorder keeps only what waits for the broker
  const { counts } = told;
  const held = state.keeps ? [["Stored", counts.records.toLocaleString()]]
    : [["Recorded", counts.recorded.toLocaleString()], ["Waiting", counts.spooled.toLocaleString()]];
  const figures = [
    ["Node", told.node], ["Mode", told.mode],
    ...held,
    ...(state.keeps ? [["Incomplete", counts.incomplete.toLocaleString(), counts.incomplete > 0]] : []),
    ["Missing", counts.missing.toLocaleString(), counts.missing > 0],
    ["Lost", counts.lost.toLocaleString(), counts.lost > 0],
    ["Dropped", counts.dropped.toLocaleString(), counts.dropped > 0],
    ["Lag", lag.length ? duration(Math.round(Math.max(...lag) * 1e6)) : "–"],
    ["CPU", told.resources.cpu_percent === null ? "–" : `${told.resources.cpu_percent.toFixed(0)} %`],
    ["Memory", bytes(told.resources.rss_bytes)],
  ];
  byId("status").replaceChildren(...figures.map(([name, value, bad]) =>
    element("div", { className: bad ? "bad" : "" }, element("dt", {}, name), element("dd", {}, value))));
  ledger(told.ledger);
  if (!state.keeps) byId("empty").hidden = true;
}

function begin() {
  byId("token-form").hidden = true;
  byId("main").hidden = false;
  status().catch(failed);
  follow();
  route();
}

byId("token-form").onsubmit = (event) => {
  event.preventDefault();
  setToken(byId("token").value);
  byId("token").value = "";
  begin();
};
byId("filters").onsubmit = (event) => event.preventDefault();
let typing = 0;
byId("filters").oninput = () => {
  clearTimeout(typing);
  typing = setTimeout(() => (state.paused ? list().catch(failed) : follow()), 200);
};
byId("pause").onclick = pause;
byId("more").onclick = () => older().catch(failed);
addEventListener("hashchange", route);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && chosenId()) { location.hash = ""; return; }
  if (event.key === "/" && !/^(INPUT|SELECT)$/.test(event.target.tagName)) { event.preventDefault(); byId("filters").elements.q.focus(); }
  if ((event.key === "ArrowDown" || event.key === "ArrowUp") && event.target.closest?.("#rows")) {
    const line = event.target.closest("tr");
    const other = event.key === "ArrowDown" ? line.nextElementSibling : line.previousElementSibling;
    if (other) { event.preventDefault(); other.querySelector("a").focus(); }
  }
});
setInterval(() => { if (!document.hidden && byId("token-form").hidden) status().catch(failed); }, 3000);
begin();
