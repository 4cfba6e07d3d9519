// One record: what was asked, what was answered, when, and how it ended.
import { getBlob, getJson, remove } from "./api.js";
import { byId, bytes, clock, duration, element, statusClass } from "./dom.js";

const LARGE = 262144; // bytes of text that a preview shows
const HEX = 16384; // bytes of one piece of a stream that are shown
const IMAGE = 5242880; // bytes of an image that a preview shows
let shownUrl = null;

let wanted = null; // the record asked for last: an answer that comes late must not replace it

export async function show(id, { onClose, onDeleted, onFailure }) {
  wanted = id;
  const panel = byId("detail");
  const record = await getJson(`/api/records/${encodeURIComponent(id)}`);
  const go = (link, text) => element("button", { type: "button", onclick: () =>
    show(link.id, { onClose, onDeleted, onFailure }).catch(onFailure) }, text);
  const content = record.request ? exchange(record, go) : await stream(record, go);
  if (wanted !== id) return;
  if (shownUrl) URL.revokeObjectURL(shownUrl);
  shownUrl = null;
  const close = element("button", { type: "button", onclick: onClose }, "Close");
  const erase = element("button", { type: "button", className: "danger" }, "Delete");
  erase.onclick = () => {
    if (!confirm("Delete this record?")) return;
    remove(`/api/records/${record.id}`).then(() => onDeleted(record.id)).catch(onFailure);
  };
  const title = record.request ? `${record.request.method} ${record.request.target}`
    : `${record.stream.application?.protocol ?? record.protocol} ${record.stream.upgrade?.target ?? record.upstream ?? ""}`;
  const head = element("div", { className: "head" }, element("h2", {}, title), erase, close);
  panel.replaceChildren(head, facts(record), ...timeline(record.timing), ...content);
  panel.hidden = false;
  panel.scrollTop = 0;
  panel.focus({ preventScroll: true });
  // Once it is filled: a panel that grows above what the browser holds on to would be scrolled out of sight.
  if (matchMedia("(max-width: 900px)").matches) panel.scrollIntoView();
}

export function hide() {
  wanted = null;
  byId("detail").hidden = true;
}

function exchange({ request, response, followed_by: next }, go) {
  const first = `${request.method} ${request.target} ${request.version}`;
  const asked = message("Request", first, request);
  if (next) asked.unshift(go(next, "Show the stream that followed"));
  if (response) return [...asked, ...message("Response", `${response.status}`, response)];
  return [...asked, element("h3", {}, "Response"), note("The client got none.")];
}

function facts(record) {
  const list = element("dl", { className: "facts" });
  const add = (name, value, className = "") =>
    value && list.append(element("dt", {}, name), element("dd", { className }, String(value)));
  const { kind, failure, detail } = record.outcome;
  add("Status", record.response?.status, statusClass(record.response?.status));
  add("Outcome", [kind, failure, detail].filter(Boolean).join(": "), kind === "ok" ? "" : "failed");
  if (record.completeness !== "complete") add("Pieces", record.completeness, "failed");
  if (record.grpc) {
    const { service, method, status, message, request, response } = record.grpc;
    add("gRPC", `${service} / ${method}, ${request.count} asked, ${response.count} answered`);
    add("gRPC status", [String(status ?? "none"), message].filter(Boolean).join(": "), status === 0 ? "" : "failed");
  }
  if (record.pace) add("Came in", `${record.pace.length} parts`);
  add("Started", clock(record.timing.started));
  add("Took", duration(record.timing.end_us));
  add("Service", `${record.service} (${record.protocol}) on ${record.origin.node}`);
  add("Client", record.client);
  add("Upstream", record.upstream);
  add("TLS", record.tls && [record.tls.version, record.tls.cipher, record.tls.server_name].filter(Boolean).join(", "));
  const spoken = record.stream?.application;
  if (spoken) {
    add("Spoken", [spoken.protocol, spoken.server_version].filter(Boolean).join(" "));
    add("User", spoken.user);
    add("Database", spoken.database);
    add("Passing TLS", spoken.encrypted && [spoken.server_name ?? "no name asked for", ...(spoken.alpn ?? [])].join(", "));
  }
  add("Masked", record.redactions?.join(", "));
  add("Id", record.id);
  return list;
}

function timeline({ request_end_us, first_byte_us, end_us }) {
  if (!end_us || first_byte_us == null) return [];
  const sent = Math.min(request_end_us ?? 0, first_byte_us);
  const parts = [["request", sent], ["waiting", first_byte_us - sent], ["answer", end_us - first_byte_us]];
  const bar = element("div", { className: "timeline" });
  bar.setAttribute("aria-hidden", "true");
  for (const [, length] of parts) {
    const part = element("i");
    part.style.flexGrow = Math.max(0, length); // through the CSSOM, which the policy does not restrict
    bar.append(part);
  }
  const text = parts.map(([name, length]) => `${name} ${duration(Math.max(0, length))}`).join(" · ");
  return [bar, note(text)];
}

const note = (text) => element("p", { className: "note" }, text);

function fields(first, headers) {
  const box = element("pre", { className: "fields", tabIndex: 0 });
  if (first) box.append(first, "\n");
  for (const [name, value] of headers) box.append(element("b", {}, name), `: ${value}\n`);
  return box;
}

function message(title, first, part) {
  const header = (name) => part.headers.find(([n]) => n.toLowerCase() === name)?.[1] ?? "";
  const content = element("div");
  preview(content, part.body, header("content-type"), header("content-encoding"))
    .catch((error) => content.append(note(`No preview: ${error.message}`)));
  const all = [element("h3", {}, title), fields(first, part.headers), content];
  if (part.trailers.length) all.push(note("Trailers"), fields("", part.trailers));
  return all;
}

async function preview(into, body, type, coding) {
  if (body.bytes === 0) return into.append(note("No content."));
  const save = element("button", { type: "button" }, "Download");
  save.onclick = async () => {
    const url = URL.createObjectURL(new Blob([await getBlob(body.href)], { type: "application/octet-stream" }));
    element("a", { href: url, download: body.href.split("/").slice(3, 5).join("-") }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };
  const facts = [bytes(body.bytes), type, coding, body.truncated ? "only a part was kept" : ""];
  into.append(element("p", { className: "note" }, `${facts.filter(Boolean).join(", ")} `, save));
  const image = /^image\/(png|jpeg|gif|webp|avif|bmp|svg\+xml)\b/i.exec(type);
  if (image && body.bytes <= IMAGE && !body.truncated) {
    shownUrl = URL.createObjectURL(new Blob([await getBlob(body.href)], { type: image[0] }));
    return into.append(element("img", { className: "preview", src: shownUrl, alt: "The recorded image" }));
  }
  let text = body.text;
  const textual = /json|text|xml|javascript|urlencoded/i.test(type);
  // The browser undoes the recorded content coding of a download.
  if (text === undefined && textual && body.bytes <= LARGE * 4 && !body.truncated) text = await (await getBlob(body.href)).text();
  if (text === undefined) return into.append(note("Not text: download it to look at it."));
  if (/json/i.test(type)) { try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* shown as it is */ } }
  const cut = text.length > LARGE;
  into.append(element("pre", { className: "fields", tabIndex: 0 }, cut ? text.slice(0, LARGE) : text));
  if (cut) into.append(note("Cut here: download it to see the rest."));
}

// What is said on a stream: messages where it is a WebSocket, else calls where they are known, and bytes.
async function stream(record, go) {
  const { client_bytes, server_bytes, truncated, upgrade, application, began_with: handshake, href } = record.stream;
  const all = [...calls(application), element("h3", {}, upgrade ? "Conversation" : "Bytes"),
    note(`${bytes(client_bytes)} from the client, ${bytes(server_bytes)} from the server`)];
  if (handshake) all.unshift(go(handshake, "Show the handshake"));
  if (upgrade) all.push(...agreed(upgrade));
  if (truncated) all.push(note("Less was kept than passed."));
  const box = element("div", { className: "conversation", tabIndex: 0 });
  const more = element("button", { type: "button" }, "Show more");
  const load = async (batch) => {
    const page = await getJson(`${href}?batch=${batch}`);
    box.append(...page.segments.map(segment));
    if (page.missing.length) box.append(note(`${page.missing.length} batches have not arrived.`));
    more.hidden = page.next === null;
    more.onclick = () => load(page.next).catch((error) => box.append(note(error.message)));
  };
  await load(0);
  return [...all, box, more];
}

function agreed({ deflate, client, server, close }) {
  const said = [`${client.messages} messages from the client, ${server.messages} from the server`];
  if (deflate) said.push("compressed by permessage-deflate");
  if (close) said.push(`closed by the ${close.from} with ${[close.code ?? "no code", close.reason].filter(Boolean).join(" ")}`);
  const odd = [["client", client.unframed], ["server", server.unframed]].filter(([, why]) => why)
    .map(([name, why]) => note(`Kept as it came from the ${name}: ${why}`));
  return [note(said.join(" · ")), ...odd];
}

// One message, or as much of it as the page has; of a plain connection the bytes that passed together.
function segment(said) {
  const { from, offset_us, opcode, part, compressed, missing, note: why } = said;
  const arrow = from === "client" ? "→" : "←";
  const facts = [arrow, duration(offset_us), opcode, part, compressed && "compressed"].filter(Boolean).join(" ");
  const [shown, cut] = opcode === undefined ? raw(said) : framed(said);
  const notes = [missing && `${bytes(missing)} before it were not kept`, why, cut && "cut here"].filter(Boolean);
  return element("div", { className: `said ${from}` }, element("b", {}, facts), element("pre", {}, shown), ...notes.map(note));
}

function framed({ text, base64 }) {
  const shown = text ?? `(base64) ${base64}`;
  return [shown.slice(0, LARGE), shown.length > LARGE];
}

function raw(said) {
  const content = octets(said);
  return [content.length ? hex(content.slice(0, HEX)) : "(closed its side)", content.length > HEX];
}

// What the client asked for, one line each, with what came of it.
function calls(spoken) {
  if (!spoken?.count) return [];
  const line = (call) => element("tr", {},
    element("td", { className: "number" }, duration(call.offset_us)),
    element("td", { className: "call" }, call.text),
    element("td", { className: "number" }, duration(call.answer_us)),
    element("td", { className: `call ${call.outcome === "ok" ? "" : "failed"}` }, call.error ?? call.outcome));
  const head = ["At", "Call", "Answered in", "Outcome"].map((name) => element("th", { scope: "col" }, name));
  const table = element("table", { className: "calls" },
    element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...spoken.calls.map(line)));
  const all = [element("h3", {}, "Calls"), table];
  if (spoken.count > spoken.calls.length) all.push(note(`The first ${spoken.calls.length} of ${spoken.count.toLocaleString()}.`));
  if (spoken.broken) all.push(note("Not all that passed could be read: there may have been more."));
  return all;
}

const octets = (segment) => segment.text !== undefined ? new TextEncoder().encode(segment.text)
  : Uint8Array.from(atob(segment.base64), (c) => c.charCodeAt(0));

// Bytes as debuggers show them: offset, 16 in hexadecimal, and as text.
function hex(content) {
  const lines = [];
  for (let at = 0; at < content.length; at += 16) {
    const part = [...content.slice(at, at + 16)];
    const digits = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ").padEnd(47);
    const text = part.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${digits}  ${text}`);
  }
  return lines.join("\n");
}
