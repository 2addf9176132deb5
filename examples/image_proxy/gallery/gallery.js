// Asks for the pictures, and draws the stages that `Server-Timing` tells of each.

const gallery = document.getElementById('gallery');
const origin = gallery.dataset.origin;

const PICTURES = [
  ['rs:fit:480:320/f:jpg', 'chelsea.png'],
  ['rs:fill:240:240/f:webp', 'chelsea.png'],
  ['rs:fit:64:64/f:png', 'chelsea.png'],
  ['rs:fit:480:320/f:webp', 'coffee.png'],
  ['rs:fill:240:240/f:jpg', 'coffee.png'],
  ['rs:fill:400:400/f:webp', 'hubble.jpg'],
  ['rs:fit:160:160/f:jpg', 'hubble.jpg'],
  ['rs:fit:300:300/f:jpg', 'rocket.jpg'],
  ['rs:force:200:200/f:png', 'rocket.jpg'],
  ['rs:fit:300:200/f:jpg', 'moved.png'],
  ['rs:fit:300:200', 'notes.txt'],
  ['rs:fit:300:200', 'missing.jpg'],
  ['rs:fit:300:200', 'elsewhere.png'],
];

const SHORT = { downloading_image: 'download', processing_image: 'processing' };

let round = 0;
const figures = new Map();

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// Adds a picture. The number makes each request another one, so that no cache answers.
function add(options, name, place) {
  const img = element('img');
  img.alt = `${name}, ${options}`;
  img.src = `resize/${options}/plain/${origin}/${name}?${++round}`;
  const figure = element('figure', '',
    element('div', 'frame', img),
    element('figcaption', '',
      element('div', 'line', element('b', '', name), element('span', '', options)),
      element('div', 'strip'),
      element('div', 'line stages', element('span', '', 'waiting for the answer'))));
  img.addEventListener('error', () => {
    figure.classList.add('failed');
    img.replaceWith('✕ no picture: its trace says why');
  });
  figures.set(img.src, figure);
  place.call(gallery, figure);
}

// One answer has arrived.
function draw(entry) {
  const figure = figures.get(entry.name);
  if (!figure) return;
  const total = entry.duration;
  const stages = entry.serverTiming.filter((timing) => timing.name !== 'trace');
  figure.querySelector('.strip').replaceChildren(...stages.map((stage) => {
    const part = element('i', stage.name);
    part.title = `${stage.name} ${time(stage.duration)}`;
    part.style.setProperty('--for', `${Math.min(100, (stage.duration / total) * 100)}%`);
    return part;
  }));
  const told = stages.map((stage) => `${SHORT[stage.name] ?? stage.name} ${time(stage.duration)}`);
  const line = [element('span', '', told.join(' · ') || 'no stages'), element('b', '', time(total))];
  const trace = entry.serverTiming.find((timing) => timing.name === 'trace')?.description.split('-')[1];
  if (trace) {
    const link = element('a', '', 'its trace');
    link.href = `debug/traces/?trace=${trace}`;
    line.push(link);
  }
  figure.querySelector('.stages').replaceChildren(...line);
}

function time(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

function load() {
  figures.clear();
  gallery.replaceChildren();
  performance.clearResourceTimings();
  for (const [options, name] of PICTURES) add(options, name, gallery.append);
}

new PerformanceObserver((list) => list.getEntries().forEach(draw)).observe({ type: 'resource', buffered: true });
document.getElementById('again').addEventListener('click', load);
document.getElementById('hang').addEventListener('click', () => add('rs:fit:300:200', 'slow.png', gallery.prepend));
load();
