// The state of the service, live: by server-sent events, and by polling while they are cut.

// A healthy stream says something at least every 10 seconds.
const SILENCE = 25_000;
const POLL = 2_000;

let stream = null;
let heard = 0;
let broken = false;
let offset = 0;
let report = () => {};

// The server's clock, so that ages are right on a machine with another time.
export const now = () => Date.now() + offset;

// How long the last word is ago.
export const silence = () => Date.now() - heard;

// Calls `onState` with each state, and `onLink` with `live`, `polling` or `cut` when that changes.
export function connect(onState, onLink) {
  let link = '';
  report = (next, state) => {
    if (state) {
      offset = state.now - Date.now();
      heard = Date.now();
    }
    if (next !== link) onLink((link = next));
    if (state) onState(state);
  };
  listen();
  setInterval(check, POLL);
  // Browsers open six connections to a host, so tabs that nobody sees give theirs back.
  addEventListener('pagehide', () => stream.close());
  addEventListener('pageshow', (event) => event.persisted && listen());
  document.addEventListener('visibilitychange', () => (document.hidden ? stream.close() : listen()));
}

function listen() {
  stream?.close();
  stream = new EventSource('api/events');
  heard = Date.now();
  stream.addEventListener('state', (event) => {
    broken = false;
    report('live', JSON.parse(event.data));
  });
  // A stream has its time, so that it holds up no shutdown.
  stream.addEventListener('over', listen);
  stream.addEventListener('error', () => {
    broken = true;
    check();
  });
}

// The browser connects again by itself, except after a refusal. Meanwhile the page asks.
async function check() {
  if (document.hidden) return;
  if (silence() > SILENCE) broken = true;
  if (!broken) return;
  if (stream.readyState === EventSource.CLOSED || silence() > SILENCE) listen();
  try {
    const state = await get('api/state');
    if (broken) report('polling', state);
  } catch {
    if (broken) report('cut');
  }
}

export async function get(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(10_000) });
  if (response.ok) return response.json();
  const text = await response.text();
  let sentence = text;
  try {
    sentence = JSON.parse(text).error ?? text;
  } catch {
    // The answer is plain text.
  }
  throw Object.assign(new Error(sentence), { status: response.status });
}
