// Starts the page: what is shown follows from the address, the state, and the time.

import { connect, get, now, silence } from './live.js';
import { isFiltered, link, listQuery, view } from './address.js';
import { showAges, showRoutes, showRunning, showTraces } from './overview.js';
import { showHealth } from './health.js';
import { showTrace } from './trace.js';
import { ago, plural } from './format.js';

const of = (id) => document.getElementById(id);
const calm = matchMedia('(prefers-reduced-motion: reduce)');

let state = null;
let connection = '';
let list = null;
let listed = { at: 0 };
let trace = { id: '' };
let paused = false;
let asking = false;
let rows = '';

connect(
  (next) => {
    state = next;
    of('service').textContent = next.service.name;
    of('version').textContent = next.service.version ?? '';
    render();
    refresh();
  },
  (next) => {
    if (connection && next === 'live') of('said').textContent = 'The stream is live again.';
    connection = next;
    // Another process may have taken its place.
    listed.latest = null;
    const words = { live: 'Live', polling: 'Polling', cut: 'Cut' };
    of('live').textContent = words[next];
    of('live').className = next;
    document.body.classList.toggle('stale', next === 'cut');
    of('cut').hidden = next === 'live';
    const what = {
      polling: 'The live stream is cut. The page asks every 2 seconds',
      cut: `The service does not answer${state ? ', and what you see is old' : ''}. The page tries again every 2 seconds`,
    };
    if (what[next]) of('cut').textContent = `${what[next]}, and connects again by itself.`;
  },
);

// Asks for what the view needs and does not have, one thing at a time.
async function refresh() {
  if (asking) return;
  const chosen = view();
  const query = listQuery(chosen);
  const isOther = listed.query !== query;
  // A busy service has another list at any time. Once a second is enough for a reader.
  const isOld = !chosen.trace && !paused && listed.latest !== state?.latest && Date.now() - listed.at > 900;
  const isUnfinished = chosen.trace && (trace.id !== chosen.trace || trace.unfinished);
  if (!isOther && !isOld && !isUnfinished) return;
  asking = true;
  if (isUnfinished) await askTrace(chosen.trace);
  if (isOther || isOld) await askList(query, isOther);
  asking = false;
  render();
  // The address may have changed meanwhile.
  if (view().trace !== chosen.trace || listQuery(view()) !== query) refresh();
}

async function askTrace(id) {
  const before = trace.id === id ? trace : { id };
  try {
    const found = await get(`api/traces/${encodeURIComponent(id)}`);
    trace = { id, trace: found, unfinished: found.running };
  } catch (error) {
    if (running(id)) trace = { id, unfinished: true };
    // One that has just ended is asked for again.
    else if (error.status) trace = { id, error: missing(error), unfinished: before.unfinished && !before.error };
    else trace = { id, error: 'The service does not answer.', unfinished: true };
  }
}

async function askList(query, isOther) {
  const latest = state?.latest;
  try {
    list = await get(query);
    if (isOther) of('said').textContent = plural(list.matched, 'trace');
  } catch (error) {
    // A refusal says why. Without an answer the list stays as it is.
    list = error.status ? { traces: [], matched: 0, error: error.message } : list;
  }
  listed = { query, latest, at: Date.now() };
}

const running = (id) => state?.running.find((request) => request.trace_id === id);

const missing = (error) =>
  error.status === 404
    ? `${error.message} The page holds some traces of each route, outcome and latency, and newer ones replace older ones.`
    : error.message;

function render() {
  if (document.hidden) return;
  const chosen = view();
  of('overview').hidden = chosen.trace !== '';
  of('trace').hidden = chosen.trace === '';
  if (!state) return;
  if (chosen.trace) {
    const shown = trace.id === chosen.trace ? trace : { id: chosen.trace };
    const request = running(chosen.trace);
    showTrace({ ...shown, running: request, neighbours: neighbours(chosen.trace) }, now());
    const name = shown.trace?.path ?? shown.trace?.name ?? request?.path ?? chosen.trace;
    document.title = `${name} · ${state.service.name}`;
  } else {
    showRunning(state, now());
    const drawn = JSON.stringify([chosen, listed, paused]);
    if (drawn !== rows) showTraces(list, now(), paused);
    rows = drawn;
    showRoutes(state);
    showHealth(state);
    document.title = `${state.running_total ? `${state.running_total} running · ` : ''}${state.service.name}`;
  }
}

function neighbours(id) {
  const ids = (list?.traces ?? []).map((row) => row.trace_id);
  const at = ids.indexOf(id);
  return at < 0 ? { older: ids.find((other) => other !== id) } : { newer: ids[at - 1], older: ids[at + 1] };
}

// Ages tick between two states. When the service is silent they stand still, because nothing is known.
let ticks = 0;
function tick() {
  ticks += 1;
  if (document.hidden || !state) return;
  if (connection === 'cut') {
    of('live').textContent = `Cut, ${ago(silence())}`;
    return;
  }
  if (ticks % 5 === 0) {
    render();
    showAges(now());
    refresh();
  } else if (state.running.length && !view().trace && !calm.matches) {
    showRunning(state, now());
  }
}
setInterval(tick, 200);
document.addEventListener('visibilitychange', render);

function go(address, replace) {
  history[replace ? 'replaceState' : 'pushState'](null, '', address);
  // The field is not changed under the hands of who types.
  if (of('q') !== document.activeElement) of('q').value = view().q;
  moved();
}

let opened = view().trace;
function moved() {
  const before = opened;
  opened = view().trace;
  render();
  refresh();
  if (before === opened) return;
  scrollTo(0, 0);
  if (opened) of('main').focus();
  else document.querySelector(`a.row[href*="${CSS.escape(before)}"]`)?.focus();
}

addEventListener('popstate', () => {
  of('q').value = view().q;
  moved();
});

document.addEventListener('click', (event) => {
  const control = event.target.closest?.('[data-do]');
  if (control && actions[control.dataset.do]) return actions[control.dataset.do](control);
  const anchor = event.target.closest?.('a[href]');
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  const href = anchor?.getAttribute('href') ?? '';
  if (plain && (href === './' || href.startsWith('?'))) {
    event.preventDefault();
    go(href);
  }
});

const THEMES = ['system', 'light', 'dark'];
function theme(name) {
  document.documentElement.dataset.theme = name;
  of('theme').setAttribute('aria-label', `Colours: ${name === 'system' ? 'as the system' : name}`);
  of('theme').title = of('theme').getAttribute('aria-label');
  of('theme').textContent = { system: '◐', light: '○', dark: '●' }[name];
}

const actions = {
  help: () => of('help').showModal(),
  pause: () => {
    paused = !paused;
    render();
    refresh();
  },
  theme: () => {
    const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3];
    theme(next);
    try {
      localStorage.setItem('theme', next);
    } catch {
      // Without storage the choice lasts as long as the page.
    }
  },
  copy: async (button) => {
    const address = new URL(`./?trace=${button.dataset.trace}`, location.href).href;
    try {
      await navigator.clipboard.writeText(address);
      of('said').textContent = 'The link is copied.';
      button.classList.add('done');
      setTimeout(() => button.classList.remove('done'), 1500);
    } catch {
      // Browsers give the clipboard to secure pages only.
      prompt('Copy the link:', address);
    }
  },
};

try {
  theme(THEMES.includes(localStorage.getItem('theme')) ? localStorage.getItem('theme') : 'system');
} catch {
  theme('system');
}

let typing = 0;
of('q').value = view().q;
of('q').addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(search, 200);
});
of('search').addEventListener('submit', (event) => {
  event.preventDefault();
  search();
  document.querySelector('#rows a')?.focus();
});
function search() {
  clearTimeout(typing);
  const q = of('q').value.trim();
  const before = view();
  // One search is one step back, however many letters it has.
  if (q !== before.q || before.trace) go(link({ q, limit: '' }), before.q !== '' && q !== '' && !before.trace);
}

const keys = {
  '/': () => of('q').select(),
  '?': actions.help,
  p: actions.pause,
  j: () => step(1),
  k: () => step(-1),
  Escape: () => {
    const chosen = view();
    if (chosen.trace) go(link({}));
    else if (isFiltered(chosen)) go('./');
  },
};

function step(by) {
  const chosen = view();
  if (chosen.trace) {
    const { newer, older } = neighbours(chosen.trace);
    const next = by > 0 ? older : newer;
    if (next) go(link({ trace: next }));
    return;
  }
  const rows = [...document.querySelectorAll('#overview .row')];
  const at = rows.indexOf(document.activeElement.closest?.('.row'));
  rows[Math.min(Math.max(at + by, 0), rows.length - 1)]?.focus();
}

addEventListener('keydown', (event) => {
  if (event.metaKey || event.ctrlKey || event.altKey || of('help').open) return;
  if (event.target === of('q')) {
    if (event.key === 'Escape') {
      of('q').value = '';
      search();
      of('q').blur();
      event.preventDefault();
    }
    return;
  }
  const action = keys[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
