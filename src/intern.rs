//! Texts that come again with every request, recorded without an allocation each time.

use std::{
    borrow::Cow,
    cell::RefCell,
    hash::{BuildHasher, BuildHasherDefault},
    sync::{Arc, OnceLock},
};

use opentelemetry::StringValue;
use rustc_hash::FxHasher;

/// More than a service has; a power of two.
const MOST_NAMES: usize = 1024;
/// Places to look in for a name, from the one its hash says.
const PROBES: usize = 8;

/// The names of all spans there were, each put down once and never taken away. A service that
/// names routes after paths fills the table, and then has a new string for each span.
static NAMES: [OnceLock<Box<str>>; MOST_NAMES] = [const { OnceLock::new() }; MOST_NAMES];

/// `{method} {route}`
pub(crate) fn span_name(method: &str, route: &str) -> Cow<'static, str> {
    find(
        [method, " ", route].map(str::len).iter().sum(),
        hash(route).wrapping_add(hash(method)),
        |name| name.ends_with(route) && name.starts_with(method),
        || format!("{method} {route}"),
    )
}

/// A name that is known to be one of few.
pub(crate) fn name(name: &str) -> Cow<'static, str> {
    find(
        name.len(),
        hash(name),
        |found| found == name,
        || name.to_owned(),
    )
}

/// The name of that length and hash.
fn find(
    length: usize,
    hash: usize,
    is_it: impl Fn(&str) -> bool,
    make: impl Fn() -> String,
) -> Cow<'static, str> {
    if length <= LONGEST_TEXT {
        for probe in 0..PROBES {
            let place = &NAMES[hash.wrapping_add(probe) % MOST_NAMES];
            let name = place.get_or_init(|| make().into());
            if name.len() == length && is_it(name) {
                return Cow::Borrowed(name);
            }
        }
    }
    Cow::Owned(make())
}

/// Bounds what is kept of texts that may be anything.
const LONGEST_TEXT: usize = 512;
/// A power of two.
const TEXTS: usize = 64;

thread_local! {
    /// The last text of each hash.
    static LAST_TEXTS: RefCell<[Option<Arc<str>>; TEXTS]> = const { RefCell::new([const { None }; TEXTS]) };
}

/// A text of a client or a router, which most likely was recorded before: a host, a user agent, a
/// route.
pub(crate) fn text(text: &str) -> StringValue {
    if text.len() > LONGEST_TEXT {
        return text.to_owned().into();
    }
    let kept = LAST_TEXTS.try_with(|texts| {
        let place = &mut texts.borrow_mut()[hash(text) % TEXTS];
        match place {
            Some(kept) if **kept == *text => Arc::clone(kept),
            _ => Arc::clone(place.insert(text.into())),
        }
    });
    // The thread is ending.
    kept.unwrap_or_else(|_| text.into()).into()
}

fn hash(text: &str) -> usize {
    // Only the lower bits are used, on every platform.
    BuildHasherDefault::<FxHasher>::default().hash_one(text) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_text_is_kept_until_another_takes_its_place() {
        let kept = |text: &str| match super::text(text).into() {
            opentelemetry::Value::String(text) => text,
            other => panic!("{other:?}"),
        };
        for number in 0..1000 {
            let name = format!("host-{}.example", number % 100);
            assert_eq!(kept(&name).as_str(), name);
        }
        let long = "x".repeat(LONGEST_TEXT + 1);
        assert_eq!(kept(&long).as_str(), long);
    }
}
