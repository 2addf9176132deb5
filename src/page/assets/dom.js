// Builds elements, and brings what is shown up to date with as few changes as possible.

// Texts become text nodes and attributes, never markup. `style` holds custom properties, set through the
// CSSOM because the Content-Security-Policy forbids style attributes.
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'style') {
      for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    } else {
      element.setAttribute(name, value === true ? '' : value);
    }
  }
  for (const child of children.flat(9)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

// Shows the children in the element. What stays the same is kept, with its focus and its unfolded parts.
export function show(element, ...children) {
  const wanted = document.createDocumentFragment();
  for (const child of children.flat(9)) if (child) wanted.append(child);
  morphChildren(element, wanted);
}

function morph(have, want) {
  if (have.nodeName !== want.nodeName) return have.replaceWith(want);
  if (have.nodeType === Node.TEXT_NODE) {
    if (have.data !== want.data) have.data = want.data;
    return;
  }
  // Whether an element is unfolded is the reader's choice.
  const kept = (name) => name === 'style' || (name === 'open' && have.nodeName === 'DETAILS');
  for (const { name } of [...have.attributes]) {
    if (!kept(name) && !want.hasAttribute(name)) have.removeAttribute(name);
  }
  for (const { name, value } of want.attributes) {
    if (!kept(name) && have.getAttribute(name) !== value) have.setAttribute(name, value);
  }
  if (have.style.cssText !== want.style.cssText) have.style.cssText = want.style.cssText;
  morphChildren(have, want);
}

const key = (node) => node.dataset?.key;

function morphChildren(have, want) {
  const wanted = new Set([...want.childNodes].map(key));
  const known = new Map([...have.childNodes].map((node) => [key(node), node]));
  let at = have.firstChild;
  for (const child of [...want.childNodes]) {
    while (at && key(at) && !wanted.has(key(at))) at = drop(at);
    const same = key(child) ? known.get(key(child)) : at && !key(at) ? at : null;
    known.delete(key(child));
    if (!same) {
      have.insertBefore(child, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else have.insertBefore(same, at);
    morph(same, child);
  }
  while (at) at = drop(at);
}

function drop(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}
