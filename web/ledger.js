// Where every captured number is: what this node recorded, and what it has of each recorder.
import { byId, bytes, element } from "./dom.js";

const count = (number) => (number ?? 0).toLocaleString();
const words = (name) => name.replaceAll("_", " ");

function table(caption, heads, lines) {
  const cell = (value, at) => {
    const [text, bad] = Array.isArray(value) ? value : [value, false];
    const className = [at > 0 ? "number" : "", bad ? "bad" : ""].join(" ").trim();
    return element("td", { className }, String(text));
  };
  const head = (text, at) => element("th", { scope: "col", className: at > 0 ? "number" : "" }, text);
  return element("table", {}, element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...heads.map(head))),
    element("tbody", {}, ...lines.map((line) => element("tr", {}, ...line.map(cell)))));
}

function recorder(told) {
  const dropped = Object.entries(told.dropped);
  const reasons = dropped.map(([reason, number]) => [`Dropped: ${words(reason)}`, [count(number), number > 0]]);
  const lines = [["Captured", count(told.captured)], ["In the spool, unsent", count(told.unsent)],
    ["Spool on disk", bytes(told.spool_bytes)], ["Published and acknowledged", `up to ${count(told.acknowledged)}`],
    ["On their way", `${count(told.in_flight)} messages`], ...reasons];
  const players = told.players.map((player) => [player.player, count(player.watermark), count(player.lag), player.live ? "yes" : "no"]);
  return [table("Recorded here, in this life", ["Numbers", ""], lines),
    players.length ? table("Players", ["Player", "Has all up to", "Behind by", "Waited for"], players) : null];
}

function player(told) {
  const lives = told.recorders.map((life) => [`${life.node} ${life.epoch}`, count(life.highest), count(life.watermark), count(life.stored),
    [count(life.missing), life.missing > 0], [count(life.dropped), life.dropped > 0], [count(life.lost), life.lost > 0]]);
  const heads = ["Recorder and its life", "Highest", "All up to", "Stored", "Missing", "Dropped", "Lost"];
  return [lives.length ? table("Received from each recorder", heads, lives) : null];
}

export function ledger(told) {
  const tables = [...(told.recorder ? recorder(told.recorder) : []), ...(told.player ? player(told.player) : [])];
  byId("ledger").hidden = !tables.some(Boolean);
  byId("ledger-tables").replaceChildren(...tables.filter(Boolean));
}
