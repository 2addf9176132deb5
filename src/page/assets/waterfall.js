// The small waterfall of a row: one line, a coloured and patterned part for each stage.

import { h } from './dom.js';
import { duration, kind, short } from './format.js';

// The colour and pattern that a stage has everywhere.
export const swatch = (name) => h('i', { class: `swatch ${name ? kind(name) : 'other'}` });

const percent = (part, whole) => (whole > 0 ? Math.min(Math.max((part / whole) * 100, 0), 100) : 0);

// Where a part lies: it starts at `--at` and takes `--for` of the width.
export function place(start, length, whole) {
  const at = percent(start, whole);
  return { '--at': `${at.toFixed(2)}%`, '--for': `${Math.min(percent(length, whole), 100 - at).toFixed(2)}%` };
}

// `spans` are `{name, start_ms, duration_ms, failed}`, of which those at the top are drawn.
export function strip(spans, whole) {
  const top = Math.min(...spans.map((span) => span.depth ?? 0));
  const stages = spans.filter((span) => (span.depth ?? 0) === top);
  const said = stages.map((span) => `${short(span.name)} ${duration(span.duration_ms)}${span.failed ? ', failed' : ''}`);
  return h(
    'span',
    { class: 'strip', role: 'img', 'aria-label': said.join('; ') || 'no stages' },
    stages.map((span) =>
      h('i', {
        class: `${kind(span.name)}${span.failed ? ' failed' : ''}${span.open ? ' open' : ''}`,
        title: `${span.name} ${duration(span.duration_ms)}`,
        style: place(span.start_ms, span.duration_ms, whole),
      }),
    ),
  );
}

// Where the time went, in words: the two stages that took most.
export function shares(spans, whole) {
  const sums = new Map();
  const top = Math.min(...spans.map((span) => span.depth ?? 0));
  for (const span of spans) {
    if ((span.depth ?? 0) === top) sums.set(span.name, (sums.get(span.name) ?? 0) + span.duration_ms);
  }
  const longest = [...sums].sort((a, b) => b[1] - a[1]).slice(0, 2);
  return longest
    .map(([name, sum]) => [name, Math.round(percent(sum, whole))])
    .filter(([, share]) => share > 0)
    .map(([name, share]) => h('span', {}, swatch(name), `${short(name)} ${share} %`));
}
