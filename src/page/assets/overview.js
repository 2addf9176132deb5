// The list of what runs, the held traces, and the routes.

import { h, show } from './dom.js';
import { age, ago, band, count, duration, MARKS, OUTCOMES, plural, rate, short } from './format.js';
import { isFiltered, link, view } from './address.js';
import { shares, strip, swatch } from './waterfall.js';

const of = (id) => document.getElementById(id);

const mark = (name) => h('b', { 'aria-hidden': 'true' }, MARKS[name]);

export function outcome(row) {
  // A client's mistake is no failure of the service, and no success either.
  const name = row.outcome === 'ok' && row.status >= 400 ? 'refused' : row.outcome;
  const words = [row.outcome === 'ok' && row.status ? '' : row.outcome, row.status];
  return h('span', { class: `outcome ${name}` }, mark(name), ` ${words.filter(Boolean).join(' ')}`);
}

// What was asked for, as the client wrote it.
export function target(row) {
  const method = row.method && row.path ? `${row.method} ` : '';
  const text = row.path ?? row.name;
  // Where there is little room, the middle is left out: the end names the picture.
  const file = text.lastIndexOf('/');
  const end = text.length < 40 ? text.length : text.length - file < 28 ? file : text.length - 20;
  return h('span', { class: 'target', title: text }, method && h('b', {}, method),
    h('bdi', {}, text.slice(0, end)), h('bdi', { class: 'tail' }, text.slice(end)));
}

export function showRunning(state, now) {
  const routes = new Map(state.routes.map((route) => [route.name, route]));
  const longest = Math.max(1000, ...state.running.map((request) => now - request.started_at));
  const rows = state.running.map((request) => running(request, now, longest, routes.get(request.name)));
  const more = state.running_total - state.running.length;
  show(
    of('running'),
    h('h2', {}, 'Running ', h('span', { class: 'number' }, count(state.running_total))),
    rows.length
      ? h('ol', { class: 'rows' }, rows)
      : h('p', { class: 'calm' }, 'Nothing is running. A request that hangs shows here, with the stage it is in.'),
    more > 0 && h('p', { class: 'calm' }, `${plural(more, 'younger request')} more`),
  );
}

function running(request, now, longest, route) {
  const ms = now - request.started_at;
  const grown = ms - request.age_ms;
  const spans = [];
  let at = 0;
  for (const stage of request.done ?? []) {
    spans.push({ ...stage, start_ms: at });
    at += stage.duration_ms;
  }
  const [outer] = request.stages;
  if (outer) {
    const length = outer.age_ms + grown;
    spans.push({ name: outer.name, start_ms: ms - length, duration_ms: length, open: true });
  }
  const slow = route?.count >= 20 && ms > route.p99_ms && ms > 1000;
  return h(
    'li',
    { 'data-key': request.span_id },
    h(
      'a',
      { class: 'row running', href: link({ trace: request.trace_id }) },
      target(request),
      h(
        'span',
        { class: 'stage' },
        swatch(outer?.name),
        request.stages.map((stage) => `${stage.name} ${age(stage.age_ms + grown)}`).join(' › ') || 'in the service itself',
      ),
      slow && h('span', { class: 'slow' }, `longer than this route’s p99, ${duration(route.p99_ms)}`),
      strip(spans, longest),
      h('span', { class: 'duration' }, age(ms)),
    ),
  );
}

export function showTraces(list, now, paused) {
  const chosen = view();
  const rows = list?.traces ?? [];
  show(
    of('traces'),
    h(
      'div',
      { class: 'heading' },
      h('h2', {}, 'Held traces ', list && h('span', { class: 'number' }, count(list.matched))),
      h(
        'nav',
        { class: 'choice', 'aria-label': 'Outcome' },
        ['', ...OUTCOMES].map((name) =>
          h('a', { href: link({ outcome: name, limit: '' }), 'aria-current': chosen.outcome === name && 'true' },
            name ? `${MARKS[name]} ${name}` : 'all'),
        ),
      ),
      h('button', { type: 'button', 'data-do': 'pause', 'aria-pressed': String(paused) }, paused ? 'Resume' : 'Pause'),
    ),
    filters(chosen),
    list?.error && h('p', { class: 'notice' }, list.error),
    rows.length > 0 && h('ol', { class: 'rows', id: 'rows' }, rows.map((row) => trace(row, now))),
    list && !list.error && !rows.length && empty(chosen),
    list && rows.length < list.matched && rows.length < 500 &&
      h('p', {}, h('a', { class: 'button', href: link({ limit: '500' }) }, `Show ${count(Math.min(list.matched, 500))}`)),
  );
}

function filters(chosen) {
  const chips = [
    ['route', chosen.route],
    ['band', chosen.band && band(Number(chosen.band))],
    ['q', chosen.q && `“${chosen.q}”`],
  ].filter(([, text]) => text);
  if (!chips.length) return null;
  return h(
    'p',
    { class: 'chips' },
    chips.map(([name, text]) =>
      h('a', { class: 'chip', href: link({ [name]: '', limit: '' }) },
        h('bdi', {}, text), h('span', { class: 'unseen' }, ', remove this filter'), h('b', { 'aria-hidden': 'true' }, '×')),
    ),
    h('a', { href: './' }, 'clear all'),
  );
}

function empty(chosen) {
  return isFiltered(chosen)
    ? h('p', { class: 'empty' }, 'No held trace is like this. ', h('a', { href: './' }, 'Show all'))
    : h('div', { class: 'empty' },
        h('p', {}, h('b', {}, 'No requests yet.')),
        h('p', {}, 'Send one to this service, for example from another tab: ',
          h('a', { href: '/' }, location.origin), '. It appears here at once.'));
}

function trace(row, now) {
  const problem = row.message ?? row.error_type;
  return h(
    'li',
    { 'data-key': row.trace_id },
    h(
      'a',
      { class: 'row', href: link({ trace: row.trace_id }) },
      target(row),
      h('span', { class: `end${problem ? ' wide' : ''}` }, outcome(row), problem && h('bdi', { class: 'message' }, problem)),
      !problem && h('span', { class: 'shares' }, shares(row.spans, row.duration_ms)),
      strip(row.spans, row.duration_ms),
      h('span', { class: 'duration' }, duration(row.duration_ms)),
      h('span', { class: 'ago', 'data-at': row.started_at }, ago(now - row.started_at)),
    ),
  );
}

// The rows stay as they are, only their ages change.
export function showAges(now) {
  for (const node of document.querySelectorAll('#rows .ago')) {
    const text = ago(now - node.dataset.at);
    if (node.textContent !== text) node.textContent = text;
  }
}

export function showRoutes(state) {
  const chosen = view();
  const most = Math.max(...state.routes.map((route) => route.count));
  show(
    of('routes'),
    h('h2', {}, 'Routes ', h('span', { class: 'number' }, count(state.routes.length))),
    state.routes.length
      ? state.routes.map((route) => card(route, chosen, route.count === most || chosen.route === route.name))
      : h('p', { class: 'calm' }, 'Each route gets its rate, percentiles and held samples here.'),
  );
}

function card(route, chosen, open) {
  const number = (n, word, name) =>
    n > 0 && h('a', { class: `outcome ${name}`, href: link({ route: route.name, outcome: name, band: '', limit: '' }) },
      mark(name), ` ${count(n)} ${word}`);
  return h(
    'details',
    { class: 'card', 'data-key': route.name, open },
    h(
      'summary',
      {},
      h('span', { class: 'target' }, h('bdi', {}, route.name)),
      h('span', { class: 'facts' },
        h('span', {}, rate(route.per_second)),
        h('span', {}, plural(route.count, 'request')),
        route.running > 0 && h('span', {}, `${count(route.running)} running`),
        route.count > 0 && h('span', {}, `p50 ${duration(route.p50_ms)}`),
        route.failed > 0 && h('span', { class: 'outcome failed' }, `✕ ${count(route.failed)}`)),
    ),
    h('p', { class: 'facts' },
      h('a', { href: link({ route: route.name, outcome: '', band: '', limit: '' }) }, 'its traces'),
      number(route.failed, 'failed', 'failed'),
      number(route.cancelled, 'cancelled', 'cancelled')),
    percentiles(route),
    grid(route, chosen),
  );
}

function percentiles(route) {
  const row = (name, of, stage) =>
    h('tr', {},
      h('th', { scope: 'row' }, stage && swatch(stage), h('bdi', {}, name),
        of.failed > 0 && stage && h('span', { class: 'failed-count' }, ` ✕ ${count(of.failed)}`)),
      [of.p50_ms, of.p95_ms, of.p99_ms].map((ms) => h('td', {}, duration(ms))));
  return h(
    'table',
    { class: 'percentiles' },
    h('thead', {}, h('tr', {}, ['time', 'p50', 'p95', 'p99'].map((name) => h('th', { scope: 'col' }, name)))),
    h('tbody', {}, row('request', route, ''), route.stages.map((stage) => row(short(stage.name), stage, stage.name))),
  );
}

// How many samples are held, by outcome and latency band, as zPages shows them.
function grid(route, chosen) {
  const most = Math.max(1, ...route.samples.flat());
  const cell = (n, name, index) => {
    const current = chosen.route === route.name && chosen.outcome === name && chosen.band === String(index);
    const weight = { '--weight': `${(20 + 60 * (Math.log1p(n) / Math.log1p(most))).toFixed(0)}%` };
    return h('td', {}, n > 0
      ? h('a', {
          class: name, style: weight, 'aria-current': current && 'true',
          'aria-label': `${n} ${name}, ${band(index)}`, title: `${n} ${name}, ${band(index)}`,
          href: link(current ? { route: '', outcome: '', band: '', limit: '' }
            : { route: route.name, outcome: name, band: String(index), limit: '' }),
        }, String(n))
      : h('span', { 'aria-hidden': 'true' }, '·'));
  };
  return h(
    'table',
    { class: 'grid' },
    h('caption', {}, 'Held samples by latency'),
    h('thead', {},
      h('tr', { 'aria-hidden': 'true' }, h('td', {}), ['µs', 'ms', 's'].map((unit) => h('th', { colspan: '3' }, unit))),
      h('tr', {}, h('td', {}), [0, 10, 100, 1, 10, 100, 1, 10, 100].map((from, index) =>
        h('th', { scope: 'col', 'aria-label': band(index) }, String(from))))),
    h('tbody', {}, OUTCOMES.map((name, row) =>
      h('tr', {},
        h('th', { scope: 'row', class: `outcome ${name}` }, mark(name), ` ${name}`),
        route.samples[row].map((n, index) => cell(n, name, index))))),
  );
}
