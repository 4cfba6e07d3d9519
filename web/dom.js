// Small helpers. Recorded text only ever becomes text nodes, never markup.
export function element(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in node) node[key] = value; else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (count >= 1024 && at < units.length - 1) { count /= 1024; at += 1; }
  return `${at === 0 || count >= 100 ? Math.round(count) : count.toFixed(1)} ${units[at]}`;
}

export function duration(micros) {
  if (micros === null || micros === undefined) return "–";
  if (micros < 1000) return `${micros} µs`;
  if (micros < 1e6) return `${(micros / 1000).toFixed(micros < 1e5 ? 1 : 0)} ms`;
  return `${(micros / 1e6).toFixed(1)} s`;
}

export function clock(iso) {
  if (!iso) return "–";
  const time = new Date(iso);
  const today = time.toDateString() === new Date().toDateString();
  const hours = time.toLocaleTimeString([], { hour12: false });
  const millis = String(time.getMilliseconds()).padStart(3, "0");
  return today ? `${hours}.${millis}` : `${time.toLocaleDateString()} ${hours}`;
}

export const statusClass = (status, outcome) =>
  status ? `s${Math.floor(status / 100)}` : outcome === "ok" ? "" : "failed";
