// Workers, what is in progress, exporters, and the page's own memory.

import { h, show } from './dom.js';
import { count, mebibytes, plural } from './format.js';

export function showHealth(state) {
  const { workers, memory, requests_in_progress: requests, images_in_progress: images } = state;
  const busy = workers && `${count(workers.busy)} of ${count(workers.total)} busy`;
  const waiting = workers && `${count(workers.waiting)} of ${count(workers.queue_size)} waiting`;
  const held = `${plural(memory.traces, 'trace')}, ${mebibytes(memory.used_bytes)} of ${mebibytes(memory.limit_bytes)}`;
  show(
    document.getElementById('health'),
    h('h2', {}, 'Health'),
    h(
      'div',
      { class: 'card' },
      workers && meter('Workers', busy, workers.busy, workers.total, workers.waiting === 0),
      workers && meter('Queue', waiting, workers.waiting, workers.queue_size),
      Number.isFinite(requests) && fact('In progress',
        plural(requests, 'request') + (Number.isFinite(images) ? `, ${plural(images, 'image')}` : '')),
      meter('This page', held, memory.used_bytes, memory.limit_bytes, true),
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
