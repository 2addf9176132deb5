//! Interned strings that recur in every request, recorded without an allocation each time.

use std::{
    borrow::Cow,
    fmt,
    hash::{BuildHasher, BuildHasherDefault},
    sync::OnceLock,
};

use opentelemetry::StringValue;
use rustc_hash::FxHasher;

/// The places to search for an entry, starting with the one of its hash.
const PROBES: usize = 8;

/// An insert-only table that is read without a lock.
pub(crate) struct Table<T, const PLACES: usize>([OnceLock<T>; PLACES]);

impl<T, const PLACES: usize> Default for Table<T, PLACES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const PLACES: usize> Table<T, PLACES> {
    pub(crate) const fn new() -> Self {
        Self([const { OnceLock::new() }; PLACES])
    }

    /// The entry of that hash, made on first use; `None` when its places are taken.
    pub(crate) fn find(
        &self,
        hash: usize,
        is_it: impl Fn(&T) -> bool,
        make: impl Fn() -> T,
    ) -> Option<&T> {
        (0..PROBES)
            .map(|probe| self.0[hash.wrapping_add(probe) % PLACES].get_or_init(&make))
            .find(|entry| is_it(entry))
    }

    /// The entry of that hash, if there is one already.
    pub(crate) fn get(&self, hash: usize, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        let places = (0..PROBES).map(|probe| self.0[hash.wrapping_add(probe) % PLACES].get());
        places.map_while(|place| place).find(|entry| is_it(entry))
    }

    /// All entries.
    #[cfg(feature = "page")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(OnceLock::get)
    }
}

impl<T, const PLACES: usize> fmt::Debug for Table<T, PLACES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

/// Every span name seen so far. A service that names routes after paths fills the table; further names
/// are new strings.
static NAMES: Table<Box<str>, 1024> = Table::new();

/// The user agents of most clients that were found to have nothing to redact.
static PLAIN: Table<Box<str>, 1024> = Table::new();

/// The first strings seen: the routes and methods of a service. All others, and those longer than
/// [`LONGEST_TEXT`], are new strings.
static TEXTS: Table<Box<str>, 2048> = Table::new();

/// Bounds the memory that strings from clients can take.
const LONGEST_TEXT: usize = 512;

/// `{method} {route}`
pub(crate) fn span_name(method: &str, route: &str) -> Cow<'static, str> {
    let make = || format!("{method} {route}");
    let name = find(
        &NAMES,
        [method, " ", route].map(str::len).iter().sum(),
        hash(route).wrapping_add(hash(method)),
        |name| name.ends_with(route) && name.starts_with(method),
        make,
    );
    name.map_or_else(|| Cow::Owned(make()), Cow::Borrowed)
}

/// Interns a name of bounded cardinality.
pub(crate) fn name(name: &str) -> Cow<'static, str> {
    let known = whole(&NAMES, name);
    known.map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed)
}

/// The string of that length and hash; `None` when it is too long, or there is no place for it.
fn find<const PLACES: usize>(
    table: &'static Table<Box<str>, PLACES>,
    length: usize,
    hash: usize,
    is_it: impl Fn(&str) -> bool,
    make: impl Fn() -> String,
) -> Option<&'static str> {
    if length > LONGEST_TEXT {
        return None;
    }
    let found = table.find(
        hash,
        |text| text.len() == length && is_it(text),
        || make().into(),
    );
    found.map(|found| &**found)
}

/// Interns a string of a client that recurs, and is recorded as it is only if `is_plain`. A string that is
/// known is not looked at again. `None` when it is not plain, or there is no place for it.
pub(crate) fn plain(text: &str, is_plain: impl FnOnce(&str) -> bool) -> Option<&'static str> {
    match PLAIN.get(hash(text), |known| **known == *text) {
        Some(known) => Some(known),
        None if is_plain(text) => whole(&PLAIN, text),
        None => None,
    }
}

/// Interns a string that recurs: a route, a method. `None` when there is no place for it.
pub(crate) fn known(text: &str) -> Option<&'static str> {
    whole(&TEXTS, text)
}

/// A string that recurs, mostly [`known`].
pub(crate) fn text(text: &str) -> StringValue {
    match known(text) {
        Some(known) => known.into(),
        None => text.to_owned().into(),
    }
}

fn whole<const PLACES: usize>(
    table: &'static Table<Box<str>, PLACES>,
    text: &str,
) -> Option<&'static str> {
    find(
        table,
        text.len(),
        hash(text),
        |found| found == text,
        || text.to_owned(),
    )
}

/// Equality of strings that mostly are the same one in memory.
pub(crate) fn same(one: &str, other: &str) -> bool {
    std::ptr::eq(one, other) || one == other
}

pub(crate) fn hash(text: &str) -> usize {
    // Only the lower bits are used, on every platform.
    BuildHasherDefault::<FxHasher>::default().hash_one(text) as usize
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_text_is_looked_at_once_and_kept_only_if_it_is_plain() {
        let looks = std::cell::Cell::new(0);
        let ask = |text: &str, is_plain: bool| {
            plain(text, |_| {
                looks.set(looks.get() + 1);
                is_plain
            })
        };
        let (agent, secret) = ("an agent of this test", "an agent with sig=S");
        for _ in 0..3 {
            assert_eq!(ask(agent, true), Some(agent));
        }
        assert_eq!(looks.replace(0), 1);
        for _ in 0..3 {
            assert_eq!(ask(secret, false), None);
        }
        assert_eq!(looks.get(), 3);
    }

    #[test]
    fn a_name_is_made_once() {
        let [first, again] = [0, 1].map(|_| span_name("GET", "/a/{name}/of/this/test"));
        assert_eq!(first, "GET /a/{name}/of/this/test");
        match (first, again) {
            (Cow::Borrowed(first), Cow::Borrowed(again)) => assert!(std::ptr::eq(first, again)),
            owned => panic!("{owned:?}"),
        }
        assert_eq!(
            span_name("PUT", "/a/{name}/of/this/test"),
            "PUT /a/{name}/of/this/test"
        );
        assert_eq!(span_name("GE", "T /a"), "GE T /a");
        assert_eq!(span_name("GE T", "/a"), "GE T /a");
    }

    #[test]
    fn an_entry_is_made_once_until_there_is_no_place() {
        const PLACES: usize = 64;
        let table = Table::<usize, PLACES>::new();
        let made = std::cell::Cell::new(0);
        let find = |number| {
            let make = || {
                made.set(made.get() + 1);
                number
            };
            table.find(number * 31, |found| *found == number, make)
        };
        for _ in 0..3 {
            for number in 0..10 {
                assert_eq!(find(number), Some(&number));
            }
        }
        assert_eq!(made.get(), 10);
        let homeless = (10..1000).filter(|number| find(*number).is_none());
        assert_eq!(homeless.count(), 1000 - PLACES);
        assert_eq!(made.get(), PLACES);
        assert_eq!(find(7), Some(&7));
    }

    #[test]
    fn a_text_is_itself_whether_it_is_kept_or_not() {
        for number in (0..10_000).chain(0..10_000) {
            let name = format!("host-{number}.example");
            assert_eq!(text(&name).as_str(), name);
        }
    }

    #[test]
    fn only_short_texts_are_kept() {
        static EMPTY: Table<Box<str>, 64> = Table::new();
        let text = |length: usize| whole(&EMPTY, &"x".repeat(length));
        assert_eq!(text(LONGEST_TEXT).map(str::len), Some(LONGEST_TEXT));
        assert_eq!(text(LONGEST_TEXT + 1), None);
        let route = "/".repeat(LONGEST_TEXT);
        assert!(matches!(span_name("GET", &route), Cow::Owned(_)));
    }

    /// Run under miri with many schedules too.
    #[test]
    fn threads_that_ask_at_once_share_one_entry() {
        const ROUNDS: usize = if cfg!(miri) { 1 } else { 200 };
        for _ in 0..ROUNDS {
            let table = Table::<usize, 8>::new();
            let made = AtomicUsize::new(0);
            let find = |number: usize| {
                let make = || {
                    made.fetch_add(1, Ordering::Relaxed);
                    number
                };
                // All of them begin at the same place.
                table.find(3, |found| *found == number, make)
            };
            let places = std::thread::scope(|scope| {
                let threads = [[0, 1, 2], [2, 1, 0], [1, 0, 2]].map(|numbers| {
                    scope.spawn(move || numbers.map(|number| (number, find(number).unwrap())))
                });
                threads.map(|thread| thread.join().unwrap())
            });
            for (number, place) in places.into_iter().flatten() {
                assert_eq!(*place, number);
                assert!(std::ptr::eq(place, find(number).unwrap()));
            }
            assert_eq!(made.into_inner(), 3);
        }
    }
}
