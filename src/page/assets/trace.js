// One trace: the waterfall with all that was recorded.

import { h, show } from './dom.js';
import { age, ago, bytes, clock, count, duration, kind } from './format.js';
import { link } from './address.js';
import { outcome, target } from './overview.js';
import { place, swatch } from './waterfall.js';

const article = () => document.getElementById('trace');

export function showTrace({ id, trace, error, neighbours, running }, now) {
  const head = [navigation(id, neighbours, trace)];
  if (error) {
    show(article(), head, h('h1', {}, 'Not held'), h('p', { class: 'empty' }, error));
  } else if (trace) {
    show(article(), head, whole(trace, now));
  } else if (running) {
    show(article(), head, still(running, now));
  } else {
    show(article(), head, h('p', { class: 'calm' }, 'Loading'));
  }
}

function navigation(id, { newer, older } = {}, trace) {
  const step = (to, text, label) =>
    to ? h('a', { class: 'button', href: link({ trace: to }), 'aria-label': label }, text)
      : h('span', { class: 'button', 'aria-hidden': 'true' }, text);
  return h(
    'nav',
    { class: 'steps', 'aria-label': 'Trace' },
    h('a', { class: 'button', href: link({}), id: 'back' }, '← All requests'),
    h('span', { class: 'pair' }, step(newer, '↑ Newer', 'Newer trace'), step(older, '↓ Older', 'Older trace')),
    h('span', { class: 'space' }),
    h('button', { type: 'button', 'data-do': 'copy', 'data-trace': id }, 'Copy link'),
    trace && h('a', { class: 'button', href: `api/traces/${id}/otlp.json`, download: `${id}.otlp.json` }, 'OTLP JSON'),
  );
}

// A request that still runs and has told nothing but its stages.
function still(request, now) {
  const ms = now - request.started_at;
  const grown = ms - request.age_ms;
  return h('div', { 'data-key': 'still' },
    h('h1', {}, target(request)),
    h('p', { class: 'facts' }, h('b', {}, `Running for ${age(ms)}`), h('code', {}, request.trace_id)),
    h('ul', { class: 'plain' },
      (request.done ?? []).map(({ name, duration_ms: ms }) => h('li', {}, swatch(name), `${name} took ${duration(ms)}`)),
      request.stages.map(({ name, age_ms: ms }) => h('li', {}, swatch(name), `${name} for ${age(ms + grown)}`)),
      !request.stages.length && h('li', {}, 'in the service itself')),
    h('p', { class: 'calm' }, 'The whole trace is here when it ends.'));
}

function whole(trace, now) {
  const spans = trace.spans;
  const total = Math.max(trace.duration_ms ?? 0, ...spans.map((span) => span.start_ms + (span.duration_ms ?? 0)));
  return h(
    'div',
    { 'data-key': trace.trace_id },
    h('h1', {}, target(trace)),
    h('p', { class: 'facts' },
      outcome(trace),
      h('b', {}, duration(trace.duration_ms)),
      trace.running && h('b', {}, 'still running'),
      h('span', { title: new Date(trace.started_at).toISOString() },
        `${clock(trace.started_at)}, ${ago(now - trace.started_at)}`),
      h('a', { href: link({ route: trace.name, outcome: '', band: '', q: '' }) }, h('bdi', {}, trace.name)),
      h('code', {}, trace.trace_id),
      h('span', {}, trace.exported ? `exported${trace.kept ? `, kept for: ${trace.kept}` : ''}` : 'not exported'),
      trace.left_out > 0 && h('b', {}, `${count(trace.left_out)} spans and log lines are left out, because the trace is large`)),
    (trace.message || trace.error_type) &&
      h('p', { class: 'problem' }, trace.error_type && h('b', {}, `${trace.error_type} `), h('bdi', {}, trace.message)),
    h('h2', {}, 'Where the time went'),
    axis(total),
    h('div', { class: 'spans' }, spans.map((item) => span(item, total))),
    logs(trace.logs ?? []),
  );
}

function axis(total) {
  const rough = total / 4;
  const power = 10 ** Math.floor(Math.log10(rough || 1));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough) || 1;
  const ticks = [];
  for (let at = 0; at <= total * 0.92 && ticks.length < 9; at += step) ticks.push(at);
  return h('div', { class: 'axis', 'aria-hidden': 'true' },
    h('span', {}),
    h('span', { class: 'track' }, ticks.map((at) => h('span', { style: place(at, 0, total) }, at ? duration(at) : '0'))),
    h('span', {}));
}

function span(item, total) {
  const failed = item.status === 'error';
  const cancelled = item.attributes.find(([key]) => key === 'image.stage.cancelled' || key === 'image.request.cancelled');
  const said = summary(item);
  const exception = item.events.find(({ name }) => name === 'exception')?.attributes ?? [];
  const message = item.message || new Map(exception).get('exception.message');
  const drawn = item.depth ? kind(item.name) : 'root';
  return h(
    'details',
    { class: `span${failed ? ' failed' : ''}`, 'data-key': item.span_id },
    h(
      'summary',
      {},
      h('span', { class: 'name', style: { '--depth': String(Math.min(item.depth, 8)) } },
        h('i', { class: `swatch ${drawn}` }),
        h('bdi', {}, item.name),
        failed && h('span', { class: 'outcome failed' }, ' ✕ failed'),
        !failed && cancelled && h('span', { class: 'outcome cancelled' }, ' ⊘ cancelled')),
      h('span', { class: 'track' },
        h('i', {
          class: `bar ${drawn}${failed ? ' failed' : ''}`,
          style: place(item.start_ms, item.duration_ms ?? total, total),
        }),
        item.events.map((event) => h('i', { class: 'event', title: event.name, style: place(event.at_ms, 0, total) }))),
      h('span', { class: 'duration' }, Number.isFinite(item.duration_ms) ? duration(item.duration_ms) : 'open'),
      said && h('bdi', { class: 'said' }, said),
      failed && message && h('bdi', { class: 'said message' }, message),
    ),
    h('div', { class: 'inside' },
      h('p', { class: 'facts' },
        h('span', {}, `starts at +${duration(item.start_ms)}`),
        h('span', {}, item.kind.toLowerCase()),
        item.scope && h('bdi', {}, item.scope),
        h('code', {}, item.span_id)),
      pairs(item.attributes),
      item.events.map((event) => h('div', { class: 'part' },
        h('h3', {}, '◆ ', h('bdi', {}, event.name), h('span', {}, ` +${duration(event.at_ms)}`)), pairs(event.attributes))),
      item.links.map((to) => h('div', { class: 'part' },
        h('h3', {}, 'Link to ', h('a', { href: link({ trace: to.trace_id }) }, to.trace_id), ` ${to.span_id}`)))),
  );
}

const pairs = (attributes) =>
  attributes.length > 0 &&
  h('dl', {}, attributes.map(([key, value]) =>
    h('div', {}, h('dt', {}, h('bdi', {}, key)), h('dd', {}, h('bdi', {}, text(value))))));

const text = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

// The facts that tell most about a stage, in one line.
function summary(item) {
  const has = new Map(item.attributes);
  const picture = (part) => {
    const names = ['width', 'height', 'format', 'size'];
    const [width, height, format, size] = names.map((name) => has.get(`image.${part}.${name}`));
    return [width && height && `${width}×${height}`, format, size && bytes(Number(size))].filter(Boolean).join(' ');
  };
  const [source, result] = [picture('source'), picture('result')];
  const status = item.kind === 'CLIENT' && has.get('http.response.status_code');
  const size = has.get('http.response.body.size');
  return [
    has.get('image.processing.options'),
    status && `status ${status}`,
    result ? `${source} → ${result}` : source,
    !source && size && bytes(Number(size)),
    has.get('image.source.url') ?? (item.kind === 'CLIENT' ? has.get('url.full') : ''),
  ].filter(Boolean).join(' · ');
}

function logs(lines) {
  if (!lines.length) return null;
  return h('section', { 'aria-label': 'Log lines' },
    h('h2', {}, 'Log lines ', h('span', { class: 'number' }, count(lines.length))),
    h('ol', { class: 'logs' }, lines.map(logLine)));
}

function logLine(line) {
  const attributes = line.attributes.map(([key, value]) => `${key}=${text(value)}`);
  return h('li', { class: /^(error|fatal|warn)/i.test(line.severity) && 'loud' },
    h('span', {}, `+${duration(line.at_ms)}`),
    h('b', {}, line.severity),
    h('bdi', { class: 'body' }, text(line.body)),
    h('bdi', { class: 'from' }, [line.target, ...attributes].filter(Boolean).join(' ')));
}
