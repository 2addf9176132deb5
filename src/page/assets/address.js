// The view in the address: `?route=&outcome=&band=&q=&limit=` is a list, `?trace=` a trace.

const NAMES = ['route', 'outcome', 'band', 'q', 'limit', 'trace'];
const FILTERS = ['route', 'outcome', 'band', 'q'];

export function view() {
  const query = new URLSearchParams(location.search);
  return Object.fromEntries(NAMES.map((name) => [name, query.get(name) ?? '']));
}

// The address of the view with these changes.
export function link(changes) {
  const next = { ...view(), trace: '', ...changes };
  const query = new URLSearchParams(NAMES.filter((name) => next[name] !== '').map((name) => [name, next[name]]));
  return query.size ? `?${query}` : './';
}

export const isFiltered = (of) => FILTERS.some((name) => of[name] !== '');

export function listQuery(of) {
  const names = [...FILTERS, 'limit'].filter((name) => of[name] !== '');
  return `api/traces?${new URLSearchParams(names.map((name) => [name, of[name]]))}`;
}
