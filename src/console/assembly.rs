//! Groups spans, which arrive in the order they ended, into blocks: a request with its stages.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet, VecDeque},
    time::SystemTime,
};

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;

/// The most spans held for parents that have not ended. Beyond it, some of the parents probably never
/// will.
const MAX_HELD: usize = 4096;
/// The number of printed spans remembered, to recognise a child that ends after its parent's block
/// was printed.
const MAX_PRINTED: usize = 1024;

type Id = (TraceId, SpanId);

/// One block of output.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) heading: Heading,
    pub(super) trace_id: TraceId,
    /// The start of the time axis.
    pub(super) start: SystemTime,
    /// Stages with their depth below the heading, in order of their start. Each is followed by its own
    /// stages.
    pub(super) stages: Vec<(usize, SpanData)>,
}

#[derive(Debug)]
pub(super) enum Heading {
    /// A local root: a span without a parent in this process.
    Request(Box<SpanData>),
    /// Stages that ended after the block of their request was printed.
    Late,
    /// Stages whose request has not ended and may never end.
    Unfinished,
}

/// Holds each span until its local root has ended. One trace id can have several local roots (an
/// upstream that calls twice, a service that calls itself), so spans are matched by parent, not by
/// trace.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// Held spans by their parent.
    held: HashMap<Id, Vec<SpanData>>,
    held_count: usize,
    /// Each printed span with the start of its time axis, oldest first.
    printed: VecDeque<(Id, SystemTime)>,
}

impl Assembly {
    /// Takes a batch of ended spans and returns the blocks that it completes.
    pub(super) fn add(&mut self, batch: Vec<SpanData>) -> Vec<Block> {
        let mut roots = Vec::new();
        let mut parents = Vec::new();
        for span in batch {
            if span.parent_span_id == SpanId::INVALID || span.parent_span_is_remote {
                roots.push(span);
            } else {
                let parent = (span.span_context.trace_id(), span.parent_span_id);
                parents.push(parent);
                self.held.entry(parent).or_default().push(span);
                self.held_count += 1;
            }
        }

        let mut blocks = Vec::new();
        for root in roots {
            let (root_id, start) = (id(&root), root.start_time);
            self.remember(root_id, start);
            let stages = self.take(&root_id);
            blocks.push(self.block(Heading::Request(Box::new(root)), root_id.0, start, stages));
        }
        // Roots come first: a stage that ended just after its root, in the same batch, still belongs
        // to the root's block.
        for parent in parents {
            if let Some(&(_, start)) = self.printed.iter().rfind(|(id, _)| *id == parent) {
                let stages = self.take(&parent);
                if !stages.is_empty() {
                    blocks.push(self.block(Heading::Late, parent.0, start, stages));
                }
            }
        }
        while self.held_count > MAX_HELD {
            let oldest = self
                .held
                .iter()
                .min_by_key(|(_, spans)| spans.iter().map(|span| span.end_time).min());
            let Some((&(trace_id, _), _)) = oldest else {
                break;
            };
            blocks.extend(self.let_go(trace_id));
        }
        blocks
    }

    /// Returns all held spans, one block per trace, oldest first.
    pub(super) fn drain(&mut self) -> Vec<Block> {
        let traces: HashSet<TraceId> = self.held.keys().map(|id| id.0).collect();
        let mut blocks: Vec<Block> = traces
            .into_iter()
            .filter_map(|trace_id| self.let_go(trace_id))
            .collect();
        blocks.sort_by_key(|block| block.start);
        blocks
    }

    /// Removes all held spans of a trace and returns them as one block.
    fn let_go(&mut self, trace_id: TraceId) -> Option<Block> {
        let of_trace = || self.held.iter().filter(|(id, _)| id.0 == trace_id);
        let ids: HashSet<Id> = of_trace().flat_map(|(_, spans)| spans).map(id).collect();
        let missing: Vec<Id> = of_trace()
            .map(|(parent, _)| *parent)
            .filter(|parent| !ids.contains(parent))
            .collect();
        let tops: Vec<SpanData> = missing
            .iter()
            .flat_map(|parent| self.take(parent))
            .collect();
        let start = tops.iter().map(|span| span.start_time).min();
        let block = start.map(|start| self.block(Heading::Unfinished, trace_id, start, tops));
        // Spans in a circle of parents have no top span. They are dropped, or they would stay forever.
        let in_a_circle = self.held.extract_if(|id, _| id.0 == trace_id);
        self.held_count -= in_a_circle.map(|(_, spans)| spans.len()).sum::<usize>();
        block
    }

    fn block(
        &mut self,
        heading: Heading,
        trace_id: TraceId,
        start: SystemTime,
        tops: Vec<SpanData>,
    ) -> Block {
        let mut stages = Vec::new();
        let mut to_visit = latest_first(tops, 0);
        while let Some((depth, span)) = to_visit.pop() {
            let span_id = id(&span);
            self.remember(span_id, start);
            to_visit.extend(latest_first(self.take(&span_id), depth + 1));
            stages.push((depth, span));
        }
        Block {
            heading,
            trace_id,
            start,
            stages,
        }
    }

    fn take(&mut self, parent: &Id) -> Vec<SpanData> {
        let spans = self.held.remove(parent).unwrap_or_default();
        self.held_count -= spans.len();
        spans
    }

    fn remember(&mut self, id: Id, start: SystemTime) {
        if self.printed.len() == MAX_PRINTED {
            self.printed.pop_front();
        }
        self.printed.push_back((id, start));
    }
}

fn id(span: &SpanData) -> Id {
    (span.span_context.trace_id(), span.span_context.span_id())
}

fn latest_first(mut spans: Vec<SpanData>, depth: usize) -> Vec<(usize, SpanData)> {
    spans.sort_by_key(|span| Reverse((span.start_time, span.end_time)));
    spans.into_iter().map(|span| (depth, span)).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::SpanContext;

    use super::super::tests::span;
    use super::*;

    /// Each block as text: its heading, then the ids of its stages in order, with a `>` per level of
    /// depth.
    fn told(blocks: &[Block]) -> Vec<String> {
        let number = |span: &SpanData| u64::from_be_bytes(span.span_context.span_id().to_bytes());
        let told = blocks.iter().map(|block| {
            let mut told = match &block.heading {
                Heading::Request(root) => format!("request {}:", number(root)),
                Heading::Late => "late:".to_owned(),
                Heading::Unfinished => "unfinished:".to_owned(),
            };
            for (depth, stage) in &block.stages {
                told.push_str(&format!(" {}{}", ">".repeat(*depth), number(stage)));
            }
            told
        });
        told.collect()
    }

    fn in_trace(trace: u128, mut span: SpanData) -> SpanData {
        let context = &span.span_context;
        span.span_context = SpanContext::new(
            TraceId::from(trace),
            context.span_id(),
            context.trace_flags(),
            false,
            context.trace_state().clone(),
        );
        span
    }

    fn continued(id: u64, parent: u64) -> SpanData {
        let mut span = span(id, parent, "request", 0, 9);
        span.parent_span_is_remote = true;
        span
    }

    #[test]
    fn stages_wait_for_their_root() {
        let mut assembly = Assembly::default();
        assert!(told(&assembly.add(vec![span(3, 2, "b", 2, 3)])).is_empty());
        assert!(told(&assembly.add(vec![span(4, 1, "c", 5, 6), span(2, 1, "a", 1, 4)])).is_empty());
        let blocks = assembly.add(vec![span(1, 0, "root", 0, 9)]);
        assert_eq!(told(&blocks), ["request 1: 2 >3 4"]);
        assert_eq!((assembly.held_count, assembly.held.len()), (0, 0));
    }

    #[test]
    fn requests_of_one_trace_are_told_apart() {
        let mut assembly = Assembly::default();
        // Two requests from one upstream. The second calls its own service from stage 21.
        let blocks = assembly.add(vec![
            span(21, 20, "download", 1, 2),
            span(11, 10, "queue", 1, 2),
            span(31, 30, "queue", 1, 2),
            continued(30, 21),
            continued(10, 99),
            continued(20, 99),
        ]);
        assert_eq!(
            told(&blocks),
            ["request 30: 31", "request 10: 11", "request 20: 21"]
        );
    }

    #[test]
    fn a_stage_that_outlives_its_root_comes_in_a_block_of_its_own() {
        let mut assembly = Assembly::default();
        let root = span(1, 0, "root", 5, 9);
        // Stage 2 ends just after the root, in the same batch.
        let blocks = assembly.add(vec![root, span(2, 1, "a", 6, 10)]);
        assert_eq!(told(&blocks), ["request 1: 2"]);
        // Three stages end much later: one below the root, one below a printed stage, and one whose
        // parent has not ended yet.
        let late = vec![
            span(3, 1, "b", 7, 20),
            span(4, 2, "c", 7, 20),
            span(6, 5, "e", 7, 20),
        ];
        let blocks = assembly.add(late);
        assert_eq!(told(&blocks), ["late: 3", "late: 4"]);
        let blocks = assembly.add(vec![span(5, 1, "d", 7, 21)]);
        assert_eq!(told(&blocks), ["late: 5 >6"]);
        assert_eq!(blocks[0].start, span(1, 0, "root", 5, 9).start_time);
        assert_eq!((assembly.held_count, assembly.held.len()), (0, 0));
    }

    #[test]
    fn what_is_held_can_be_drained() {
        let mut assembly = Assembly::default();
        assembly.add(vec![
            in_trace(8, span(4, 3, "b", 2, 3)),
            in_trace(8, span(5, 4, "c", 2, 3)),
            in_trace(8, span(7, 6, "d", 3, 4)),
        ]);
        let others = 10..20_u64;
        assembly.add(
            others
                .clone()
                .map(|id| in_trace(id.into(), span(id, 1, "a", id, id)))
                .collect(),
        );
        let mut expected = vec!["unfinished: 4 >5 7".to_owned()];
        expected.extend(others.map(|id| format!("unfinished: {id}")));
        assert_eq!(told(&assembly.drain()), expected, "oldest first");
        assert!(assembly.drain().is_empty());
        assert_eq!((assembly.held_count, assembly.held.len()), (0, 0));
    }

    #[test]
    fn spans_in_a_circle_are_let_go() {
        let mut assembly = Assembly::default();
        assembly.add(vec![
            span(2, 3, "a", 0, 1),
            span(3, 2, "b", 0, 1),
            span(4, 4, "c", 0, 1),
        ]);
        assert!(assembly.drain().is_empty());
        assert_eq!((assembly.held_count, assembly.held.len()), (0, 0));
    }

    #[test]
    fn memory_is_bounded() {
        let mut assembly = Assembly::default();
        let mut let_go = Vec::new();
        // The root of every second trace never comes.
        for trace in 1..=2 * MAX_HELD as u64 + 10 {
            let mut batch = vec![span(2, 1, "a", trace, trace)];
            if trace % 2 == 0 {
                batch.push(span(1, 0, "root", trace, trace));
            }
            let batch = batch
                .into_iter()
                .map(|span| in_trace(trace.into(), span))
                .collect();
            let blocks = assembly.add(batch);
            let unfinished = blocks
                .iter()
                .filter(|block| matches!(block.heading, Heading::Unfinished));
            let_go.extend(unfinished.map(|block| block.trace_id));
        }
        assert_eq!(let_go, [1, 3, 5, 7, 9].map(TraceId::from), "oldest first");
        assert_eq!(assembly.held_count, MAX_HELD);
        assert_eq!(assembly.printed.len(), MAX_PRINTED);
        assert_eq!(assembly.drain().len(), MAX_HELD);
    }
}
