use crate::{
    instrument::TextRules,
    intern::{Table, hash, same},
    telemetry::otlp::encode::Attributes,
};

/// Bounds the memory that texts from clients can take.
const LONGEST: usize = 1024;

/// The attributes that one request after the other begins with: those of its method, its host, its user
/// agent. They are written once, for the first so many of them.
#[derive(Debug, Default)]
pub(super) struct Runs(Box<Table<Run, 512>>);

struct Run {
    of: Box<[Box<str>]>,
    texts: TextRules,
    written: Attributes,
}

impl Runs {
    /// What `write` makes of the texts `of` by these rules; `None` when there is no place for it.
    pub(super) fn find(
        &self,
        of: &[&str],
        texts: &TextRules,
        write: impl Fn() -> Attributes,
    ) -> Option<&Attributes> {
        if of.iter().map(|text| text.len()).sum::<usize>() > LONGEST {
            return None;
        }
        // What differs most between clients, and between hosts, comes last.
        let differing = of.iter().rev().take(3);
        let hash = differing.fold(0_usize, |before, text| {
            before.rotate_left(5).wrapping_add(hash(text))
        });
        let is_it = |run: &Run| {
            let mut pairs = run.of.iter().zip(of);
            pairs.all(|(one, other)| same(one, other)) && run.texts == *texts
        };
        let make = || Run {
            of: of.iter().map(|text| Box::from(*text)).collect(),
            texts: texts.clone(),
            written: write(),
        };
        self.0.find(hash, is_it, make).map(|run| &run.written)
    }
}
