// Numbers with units, times, and the names of things.

// Three digits and a unit: 340 ns, 2.14 µs, 62.7 ms, 1.52 s, 2 min 5 s.
export function duration(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms >= 59_950) {
    const s = Math.round(ms / 1000);
    const min = Math.floor(s / 60);
    return min < 60 ? `${min} min ${s % 60} s` : `${Math.floor(min / 60)} h ${min % 60} min`;
  }
  if (ms <= 0) return '0 ms';
  if (ms < 0.0009995) return `${digits(ms * 1e6)} ns`;
  if (ms < 0.9995) return `${digits(ms * 1000)} µs`;
  return ms < 999.5 ? `${digits(ms)} ms` : `${digits(ms / 1000)} s`;
}

const digits = (value) => value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0);

// The time that a request has been running: in tenths of a second, so that it ticks evenly.
export const age = (ms) => (ms < 59_950 ? `${(Math.max(ms, 0) / 1000).toFixed(1)} s` : duration(ms));

export function ago(ms) {
  const s = ms / 1000;
  if (s < 2) return 'now';
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  return s < 86_400 ? `${Math.floor(s / 3600)} h ago` : `${Math.floor(s / 86_400)} d ago`;
}

export function clock(unixMs) {
  const at = new Date(unixMs);
  const [h, min, s] = [at.getHours(), at.getMinutes(), at.getSeconds()].map((n) => String(n).padStart(2, '0'));
  return `${h}:${min}:${s}.${String(at.getMilliseconds()).padStart(3, '0')}`;
}

export const count = (n) => (n ?? 0).toLocaleString('en');

export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? '' : 's'}`;

export function bytes(n) {
  for (const unit of ['B', 'kB', 'MB']) {
    if (n < 999.5) return `${unit === 'B' ? n : digits(n)} ${unit}`;
    n /= 1000;
  }
  return `${digits(n)} GB`;
}

export function mebibytes(n) {
  return n < 1 << 20 ? `${Math.round(n / 1024)} KiB` : `${(n / (1 << 20)).toFixed(1)} MiB`;
}

export const rate = (n) => `${n < 9.95 ? (n ?? 0).toFixed(1) : count(Math.round(n))}/s`;

// The lower ends of the latency bands, as zPages has them.
const BANDS = ['0', '10 µs', '100 µs', '1 ms', '10 ms', '100 ms', '1 s', '10 s', '100 s'];
export const band = (n) => (n < 8 ? `${BANDS[n]} to ${BANDS[n + 1]}` : 'over 100 s');

export const OUTCOMES = ['ok', 'failed', 'cancelled'];
export const MARKS = { ok: '✓', failed: '✕', cancelled: '⊘', refused: '!' };

// What a stage is drawn as.
export function kind(name) {
  if (/queue|wait/i.test(name)) return 'queue';
  if (/download|fetch|^(GET|HEAD|POST)\b/i.test(name)) return 'download';
  if (/process|resize|decod|encod/i.test(name)) return 'processing';
  return /stream|send/i.test(name) ? 'streaming' : 'other';
}

// imgproxy's names for the stages, shorter where there is little room.
const SHORT = { downloading_image: 'download', processing_image: 'processing', streaming_image: 'streaming' };
export const short = (name) => SHORT[name] ?? name;
