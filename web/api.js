// Talks to the node. The token lives in sessionStorage: gone with the tab, never in a URL.
const KEY = "qproxy-token";

export class ApiError extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export const setToken = (token) => sessionStorage.setItem(KEY, token);

async function send(path, options = {}) {
  const token = sessionStorage.getItem(KEY);
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  throw new ApiError(answer.status, told?.error?.message ?? `the node answered ${answer.status}`);
}

export const getJson = async (path) => (await send(path)).json();
export const getBlob = async (path) => (await send(path)).blob();
export const remove = (path) => send(path, { method: "DELETE" });

// Reads server-sent events with fetch, because EventSource cannot send a token.
export async function watch(path, signal, onOpen, onEvent) {
  const answer = await send(path, { signal });
  onOpen();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.split("\n").filter((line) => line.startsWith(`${name}:`))
        .map((line) => line.slice(name.length + 1).replace(/^ /, "")).join("\n");
      if (field("data")) onEvent(field("event"), JSON.parse(field("data")));
    }
  }
}
