// One record: what was asked, what was answered, when, and how it ended.
import { getBlob, getJson, remove } from "./api.js";
import { byId, bytes, clock, duration, element, statusClass } from "./dom.js";

const LARGE = 262144; // bytes of text that a preview shows
const IMAGE = 5242880; // bytes of an image that a preview shows
let shownUrl = null;

let wanted = null; // the record asked for last: an answer that comes late must not replace it

export async function show(id, { onClose, onDeleted, onFailure }) {
  wanted = id;
  const panel = byId("detail");
  const record = await getJson(`/api/records/${encodeURIComponent(id)}`);
  const content = record.request ? exchange(record) : await stream(record);
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
    : `${record.protocol} ${record.upstream ?? ""}`;
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

function exchange({ request, response }) {
  const first = `${request.method} ${request.target} ${request.version}`;
  const asked = message("Request", first, request);
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

async function stream(record) {
  const page = await getJson(record.stream.href);
  const box = element("pre", { className: "fields", tabIndex: 0 });
  for (const segment of page.segments) {
    const arrow = segment.from === "client" ? "→" : "←";
    box.append(element("b", {}, `${arrow} ${duration(segment.offset_us)} `), segment.text ?? `(base64) ${segment.base64}`, "\n");
  }
  const all = [element("h3", {}, "Segments"), note(`${bytes(record.stream.client_bytes)} from the client, ${bytes(record.stream.server_bytes)} from the server`), box];
  if (page.missing.length) all.push(note(`${page.missing.length} batches have not arrived.`));
  if (page.next !== null) all.push(note("Only the first segments are shown."));
  return all;
}
