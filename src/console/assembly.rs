//! From spans in the order they ended to blocks: a request with the stages that belong to it.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::SystemTime;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;

/// Spans held for a parent that has not ended. More are a sign of parents that never will.
const MAX_HELD: usize = 4096;
/// Printed spans remembered, so that a child that ends after its parent is known to be late.
const MAX_PRINTED: usize = 1024;

type Id = (TraceId, SpanId);

/// One block of output.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) heading: Heading,
    pub(super) trace_id: TraceId,
    /// Where the time axis starts.
    pub(super) start: SystemTime,
    /// The stages in the order they started, each followed by its own, with their depth below the heading.
    pub(super) stages: Vec<(usize, SpanData)>,
}

#[derive(Debug)]
pub(super) enum Heading {
    /// The local root: a span without a parent in this process.
    Request(Box<SpanData>),
    /// Stages that ended after the block of their request was printed.
    Late,
    /// Stages whose request has not ended, and perhaps never will.
    Unfinished,
}

/// Holds each span until its local root has ended. One trace id may have several local roots (an upstream that
/// calls twice, a service that calls itself), so spans are followed from parent to parent.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// By parent.
    held: HashMap<Id, Vec<SpanData>>,
    held_count: usize,
    /// Each with the start of the axis it was printed on.
    printed: VecDeque<(Id, SystemTime)>,
}

impl Assembly {
    /// Takes spans that ended and returns the blocks that are complete with them.
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
        // After the roots: a stage that ended just after its root, in the same batch, is still part of its block.
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

    /// Returns what is held for local roots that have not ended, a block a trace, oldest first.
    pub(super) fn drain(&mut self) -> Vec<Block> {
        let traces: HashSet<TraceId> = self.held.keys().map(|id| id.0).collect();
        let mut blocks: Vec<Block> = traces
            .into_iter()
            .filter_map(|trace_id| self.let_go(trace_id))
            .collect();
        blocks.sort_by_key(|block| block.start);
        blocks
    }

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
        // Spans that are each other's parents hang below no top and would stay for ever.
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
