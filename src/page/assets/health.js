// Workers, what is in progress, exporters, and the page's own memory.

import { h, show } from './dom.js';
import { count, mebibytes, plural } from './format.js';

export function showHealth(state) {
  const { workers, memory } = state;
  show(
    document.getElementById('health'),
    h('h2', {}, 'Health'),
    h(
      'div',
      { class: 'card' },
      workers && meter('Workers', `${count(workers.busy)} of ${count(workers.total)} busy`, workers.busy, workers.total, workers.waiting === 0),
      workers && meter('Queue', `${count(workers.waiting)} of ${count(workers.queue_size)} waiting`, workers.waiting, workers.queue_size),
      state.requests_in_progress !== null && fact('In progress',
        [plural(state.requests_in_progress, 'request'), state.images_in_progress !== null && plural(state.images_in_progress, 'image')]
          .filter(Boolean).join(', ')),
      meter('This page', `${plural(memory.traces, 'trace')}, ${mebibytes(memory.used_bytes)} of ${mebibytes(memory.limit_bytes)}`,
        memory.used_bytes, memory.limit_bytes, true),
      state.exporters.length
        ? state.exporters.map(exporter)
        : fact('Export', 'None: this page works alone.'),
    ),
  );
}

const fact = (name, text) => h('p', { class: 'fact' }, h('span', {}, name), h('span', {}, text));

// A full one is a warning, unless it may be full.
function meter(name, text, value, limit, mayBeFull) {
  const share = limit > 0 ? Math.min(value / limit, 1) : 0;
  return h(
    'div',
    { class: `fact${share >= 1 && !mayBeFull ? ' warns' : ''}` },
    h('span', {}, name),
    h('span', {}, text),
    h('span', {
      class: 'meter', role: 'meter', 'aria-label': name, 'aria-valuenow': value, 'aria-valuemin': '0',
      'aria-valuemax': limit, 'aria-valuetext': text, style: { '--for': `${(share * 100).toFixed(1)}%` },
    }),
  );
}

function exporter(of) {
  const bad = of.lost > 0 || of.failed_exports > 0;
  return h(
    'div',
    { class: `fact${bad ? ' warns' : ''}` },
    h('span', {}, `Export of ${of.signal}`),
    h('span', {}, `${count(of.exported)} sent, `, h('b', {}, `${count(of.lost)} lost`), `, ${count(of.queued)} waiting`),
    of.failed_exports > 0 && h('span', { class: 'message' }, `${plural(of.failed_exports, 'request')} failed`),
    of.last_error && h('bdi', { class: 'message' }, of.last_error),
  );
}
