//! The cache of results: bounded in bytes, the least recently used leave first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{options::Options, rendition::Rendition};

/// Bytes that an entry takes beside its texts and its picture, rounded up.
const ENTRY: u64 = 512;

/// What a result depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The source's URL.
    pub(crate) source: String,
    pub(crate) options: Options,
}

#[derive(Clone, Debug)]
pub(crate) struct Cache {
    entries: Arc<Mutex<Entries>>,
    limit: u64,
    max_age: Duration,
}

#[derive(Debug, Default)]
struct Entries {
    renditions: HashMap<Arc<Key>, (u64, Rendition)>,
    /// The least recently used comes first.
    by_use: BTreeMap<u64, Arc<Key>>,
    uses: u64,
    bytes: u64,
}

impl Cache {
    /// A cache of at most `limit` bytes, which keeps no result for longer than `max_age`.
    pub(crate) fn new(limit: u64, max_age: Duration) -> Self {
        Self {
            entries: Arc::default(),
            limit,
            max_age,
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Rendition> {
        let mut entries = self.entries();
        let (key, rendition) = entries.remove(key)?;
        if rendition.age() >= self.max_age {
            return None;
        }
        entries.insert(key, rendition.clone());
        Some(rendition)
    }

    pub(crate) fn insert(&self, key: Key, rendition: Rendition) {
        if cost(&key, &rendition) > self.limit {
            return;
        }
        let mut entries = self.entries();
        entries.remove(&key);
        entries.insert(Arc::new(key), rendition);
        while entries.bytes > self.limit {
            let oldest = entries.by_use.first_key_value();
            let Some(oldest) = oldest.map(|(_, key)| Arc::clone(key)) else {
                break;
            };
            entries.remove(&oldest);
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Nothing panics while the lock is held.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn insert(&mut self, key: Arc<Key>, rendition: Rendition) {
        self.uses += 1;
        self.bytes += cost(&key, &rendition);
        self.by_use.insert(self.uses, Arc::clone(&key));
        self.renditions.insert(key, (self.uses, rendition));
    }

    fn remove(&mut self, key: &Key) -> Option<(Arc<Key>, Rendition)> {
        let (key, (used, rendition)) = self.renditions.remove_entry(key)?;
        self.by_use.remove(&used);
        self.bytes -= cost(&key, &rendition);
        Some((key, rendition))
    }
}

/// The bytes of an entry.
fn cost(key: &Key, rendition: &Rendition) -> u64 {
    ENTRY + key.source.len() as u64 + rendition.bytes.len() as u64
}
