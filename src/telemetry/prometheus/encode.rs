//! The text formats of Prometheus.
//!
//! - 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details>
//! - OpenMetrics 1.0: <https://prometheus.io/docs/specs/om/open_metrics_spec/>

use std::{io::Write, ops::Range};

use opentelemetry::{InstrumentationScope, Key, KeyValue, Value};
use opentelemetry_sdk::{
    Resource,
    metrics::data::{AggregatedMetrics, HistogramDataPoint, Metric, MetricData, ResourceMetrics},
};

use super::{
    families::{Collision, Family, gather},
    names::{Kind, Naming, push_label},
};
use crate::intern::same;

/// One of the two text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Text format 0.0.4.
    Text,
    OpenMetrics,
}

/// Writes a page, and returns what had to be left out. Whenever `page` is full, `spill` may take what is in
/// it.
pub(super) fn encode(
    metrics: &ResourceMetrics,
    naming: &Naming,
    format: Format,
    page: &mut Vec<u8>,
    spill: &mut dyn FnMut(&mut Vec<u8>),
) -> Vec<Collision> {
    let (families, collisions) = gather(metrics, naming);
    let mut encoder = Encoder {
        format,
        without_scope: naming.without_scope,
        page,
        spill,
        labels: Labels::default(),
        bounds: Bounds::default(),
    };
    encoder.target(metrics.resource());
    for (name, family) in &families {
        encoder.family(name, family);
    }
    if format == Format::OpenMetrics {
        page.extend_from_slice(b"# EOF\n");
    }
    collisions
}

/// A page with this many bytes is full.
pub(super) const FULL: usize = 64 << 10;

struct Encoder<'a> {
    format: Format,
    without_scope: bool,
    page: &'a mut Vec<u8>,
    spill: &'a mut dyn FnMut(&mut Vec<u8>),
    labels: Labels,
    bounds: Bounds,
}

impl Encoder<'_> {
    /// The resource, which belongs to all metrics.
    fn target(&mut self, resource: &Resource) {
        if resource.is_empty() {
            return;
        }
        let attributes = resource.iter().map(|(key, value)| (key.as_str(), value));
        // The older format has no type for it.
        let (name, kind) = match self.format {
            Format::Text => ("target_info", "gauge"),
            Format::OpenMetrics => ("target", "info"),
        };
        self.head(name, kind, None, "Target metadata");
        self.page.extend_from_slice(b"target_info{");
        push_joined(self.page, attributes.collect());
        self.page.extend_from_slice(b"} 1\n");
    }

    fn head(&mut self, name: &str, kind: &str, unit: Option<&str>, help: &str) {
        let page = &mut *self.page;
        // Each line begins and ends as OpenMetrics, the stricter one, wants it.
        for (what, text) in [("HELP", help), ("TYPE", kind), ("UNIT", unit.unwrap_or(""))] {
            if !text.is_empty() {
                for part in ["# ", what, " ", name, " "] {
                    page.extend_from_slice(part.as_bytes());
                }
                let quote = self.format == Format::OpenMetrics;
                push_escaped(page, text, quote);
                page.push(b'\n');
            }
        }
    }

    fn family(&mut self, name: &str, family: &Family<'_>) {
        let total = format!("{name}_total");
        let is_counter = family.kind == Kind::Counter;
        let sample = if is_counter { &total } else { name };
        let kind = self.type_name(name, family.kind);
        match self.format {
            Format::Text => self.head(sample, kind, None, family.help),
            Format::OpenMetrics => self.head(name, kind, family.unit.as_deref(), family.help),
        }
        let has_scope = !self.without_scope || family.metrics.len() > 1;
        for (scope, metric) in &family.metrics {
            let mut labels = Vec::new();
            if has_scope {
                push_scope(&mut labels, scope.scope());
            }
            self.metric(sample, metric, &labels);
        }
    }

    /// A gauge such as `process_thread_count` looks like a part of a histogram. `promtool` complains about it
    /// unless its type is unknown.
    fn type_name(&self, name: &str, kind: Kind) -> &'static str {
        let suffixes = ["_bucket", "_sum", "_count", "_total"];
        let is_odd = suffixes.iter().any(|suffix| name.ends_with(suffix));
        match self.format {
            Format::Text if kind == Kind::Gauge && is_odd => "untyped",
            Format::OpenMetrics if kind == Kind::Gauge && is_odd => "unknown",
            _ => kind.as_str(),
        }
    }

    fn metric(&mut self, name: &str, metric: &Metric, scope: &[u8]) {
        match metric.data() {
            AggregatedMetrics::F64(data) => self.data(name, data, scope),
            AggregatedMetrics::U64(data) => self.data(name, data, scope),
            AggregatedMetrics::I64(data) => self.data(name, data, scope),
        }
    }

    fn data<T: Number>(&mut self, name: &str, data: &MetricData<T>, scope: &[u8]) {
        match data {
            MetricData::Gauge(gauge) => {
                for point in gauge.data_points() {
                    let labels = self.open(name, "", || point.attributes(), scope);
                    self.close(&labels, |page| point.value().push(page));
                }
            }
            MetricData::Sum(sum) => {
                for point in sum.data_points() {
                    let labels = self.open(name, "", || point.attributes(), scope);
                    self.close(&labels, |page| point.value().push(page));
                }
            }
            MetricData::Histogram(histogram) => {
                for point in histogram.data_points() {
                    let labels = self.open(name, "_bucket", || point.attributes(), scope);
                    self.buckets(&labels, name.len() + "_bucket{".len(), point);
                    self.sample(name, "_sum", &labels, |page| point.sum().push(page));
                    self.sample(name, "_count", &labels, |page| point.count().push(page));
                }
            }
            MetricData::ExponentialHistogram(histogram) => {
                for point in histogram.data_points() {
                    let labels = self.open(name, "_sum", || point.attributes(), scope);
                    self.close(&labels, |page| point.sum().push(page));
                    let count = point.count() as u64;
                    self.sample(name, "_count", &labels, |page| count.push(page));
                }
            }
        }
    }

    /// Begins the first sample of a point, and returns where its labels are on the page. They stay there
    /// until the next point.
    fn open<'p, I>(
        &mut self,
        name: &str,
        suffix: &str,
        attributes: impl Fn() -> I,
        scope: &[u8],
    ) -> Range<usize>
    where
        I: Iterator<Item = &'p KeyValue>,
    {
        if self.page.len() >= FULL {
            (self.spill)(self.page);
        }
        let page = &mut *self.page;
        page.extend_from_slice(name.as_bytes());
        page.extend_from_slice(suffix.as_bytes());
        page.push(b'{');
        let start = page.len();
        self.labels.push(page, attributes);
        if page.len() > start && !scope.is_empty() {
            page.push(b',');
        }
        page.extend_from_slice(scope);
        start..page.len()
    }

    /// Ends the sample that was just opened.
    fn close(&mut self, labels: &Range<usize>, value: impl FnOnce(&mut Vec<u8>)) {
        let page = &mut *self.page;
        match labels.is_empty() {
            true => page.truncate(labels.start - 1),
            false => page.push(b'}'),
        }
        page.push(b' ');
        value(page);
        page.push(b'\n');
    }

    /// A further sample with the same labels.
    fn sample(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &Range<usize>,
        value: impl FnOnce(&mut Vec<u8>),
    ) {
        let page = &mut *self.page;
        page.extend_from_slice(name.as_bytes());
        page.extend_from_slice(suffix.as_bytes());
        if !labels.is_empty() {
            page.push(b'{');
            page.extend_from_within(labels.clone());
            page.push(b'}');
        }
        page.push(b' ');
        value(page);
        page.push(b'\n');
    }

    /// Ends the sample of the first bucket, which has `before` bytes before its labels, and adds those of
    /// the others.
    fn buckets<T>(&mut self, labels: &Range<usize>, before: usize, point: &HistogramDataPoint<T>) {
        self.bounds.set(|| point.bounds(), self.format);
        let page = &mut *self.page;
        if !labels.is_empty() {
            page.push(b',');
        }
        page.extend_from_slice(b"le=\"");
        let common = labels.start - before..page.len();
        let (mut count, mut counts) = (0, point.bucket_counts());
        for bound in &self.bounds.texts {
            count += counts.next().unwrap_or(0);
            page.extend_from_slice(bound);
            page.extend_from_slice(b"\"} ");
            count.push(page);
            page.push(b'\n');
            page.extend_from_within(common.clone());
        }
        // The SDK counts no buckets where there are no boundaries.
        page.extend_from_slice(b"+Inf\"} ");
        point.count().push(page);
        page.push(b'\n');
    }
}

/// The finite boundaries, which all points of a metric share, and their texts.
#[derive(Default)]
struct Bounds {
    values: Vec<f64>,
    texts: Vec<Vec<u8>>,
}

impl Bounds {
    fn set<I: Iterator<Item = f64>>(&mut self, bounds: impl Fn() -> I, format: Format) {
        if bounds().eq(self.values.iter().copied()) {
            return;
        }
        self.values = bounds().collect();
        let texts = self.values.iter().map(|bound| match format {
            Format::Text => bound.to_string().into_bytes(),
            Format::OpenMetrics => canonical(*bound).into_bytes(),
        });
        self.texts = texts.collect();
    }
}

/// OpenMetrics, "Canonical Numbers": as Go's `%g` writes it, and with a point or an exponent.
fn canonical(number: f64) -> String {
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.parse().unwrap_or(0) {
        exponent @ ..-4 => format!("{mantissa}e-{:02}", -exponent),
        exponent @ 6.. => format!("{mantissa}e+{exponent:02}"),
        _ => format!("{number:?}"),
    }
}

/// The value of a sample.
trait Number: Copy {
    fn push(self, page: &mut Vec<u8>);
}

impl Number for u64 {
    fn push(mut self, page: &mut Vec<u8>) {
        let mut digits = [0; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (self % 10) as u8;
            self /= 10;
            if self == 0 {
                break;
            }
        }
        page.extend_from_slice(&digits[start..]);
    }
}

impl Number for i64 {
    fn push(self, page: &mut Vec<u8>) {
        if self < 0 {
            page.push(b'-');
        }
        self.unsigned_abs().push(page);
    }
}

impl Number for f64 {
    fn push(self, page: &mut Vec<u8>) {
        if self.is_finite() {
            // Writing to a `Vec` never fails.
            let _ = write!(page, "{self}");
        } else {
            page.extend_from_slice(match self {
                Self::INFINITY => b"+Inf",
                Self::NEG_INFINITY => b"-Inf",
                _ => b"NaN",
            });
        }
    }
}

/// Backslashes, line feeds and, where the text stands in quotes, quotes are escaped.
fn push_escaped(page: &mut Vec<u8>, text: &str, quotes: bool) {
    let mut rest = text.as_bytes();
    let is_special = |byte: &u8| matches!(byte, b'\\' | b'\n') || (quotes && *byte == b'"');
    // Most texts have nothing to escape, which is quicker found out without stopping at it.
    if !rest.iter().fold(false, |any, byte| any | is_special(byte)) {
        return page.extend_from_slice(rest);
    }
    while let Some(at) = rest.iter().position(is_special) {
        page.extend_from_slice(&rest[..at]);
        page.extend_from_slice(match rest[at] {
            b'\n' => b"\\n",
            b'"' => b"\\\"",
            _ => b"\\\\",
        });
        rest = &rest[at + 1..];
    }
    page.extend_from_slice(rest);
}

fn push_scope(labels: &mut Vec<u8>, scope: &InstrumentationScope) {
    let fixed = [
        ("otel_scope_name", Some(scope.name())),
        ("otel_scope_version", scope.version()),
        ("otel_scope_schema_url", scope.schema_url()),
    ];
    for (label, value) in fixed {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            push_pair(labels, label.as_bytes(), value);
        }
    }
    let attributes = scope.attributes().map(|attribute| {
        let mut label = b"otel_scope_".to_vec();
        let key = attribute.key.as_str().bytes();
        label.extend(key.map(|byte| match byte.is_ascii_alphanumeric() {
            true => byte,
            false => b'_',
        }));
        (attribute.key.as_str(), label, &attribute.value)
    });
    for (label, value) in joined(attributes.collect()) {
        if !fixed.iter().any(|(fixed, _)| fixed.as_bytes() == label) {
            push_pair(labels, &label, &value);
        }
    }
}

fn push_pair(labels: &mut Vec<u8>, label: &[u8], value: &str) {
    if !labels.is_empty() {
        labels.push(b',');
    }
    labels.extend_from_slice(label);
    push_value(labels, value);
}

fn push_value(labels: &mut Vec<u8>, value: &str) {
    labels.extend_from_slice(b"=\"");
    push_escaped(labels, value, true);
    labels.push(b'"');
}

/// The labels that points have: all points of a metric mostly have the same few sequences of keys.
#[derive(Default)]
struct Labels {
    known: Vec<Keys>,
    /// The sequence of the last point.
    last: usize,
}

impl Labels {
    /// More sequences than the points of most metrics have. The SDK keeps a point under the order of its
    /// first measurement and under the order of the keys, and returns either.
    const MOST: usize = 8;

    /// Appends the labels of a point.
    fn push<'a, I>(&mut self, page: &mut Vec<u8>, attributes: impl Fn() -> I)
    where
        I: Iterator<Item = &'a KeyValue>,
    {
        let start = page.len();
        for _ in 0..self.known.len() {
            if self.known[self.last].push(page, attributes()) {
                return;
            }
            page.truncate(start);
            self.last = (self.last + 1) % self.known.len();
        }
        let keys = Keys::new(attributes());
        if keys.collide {
            let attributes = attributes().map(|it| (it.key.as_str(), &it.value));
            return push_joined(page, attributes.collect());
        }
        keys.push(page, attributes());
        if self.known.len() == Self::MOST {
            self.known.clear();
        }
        self.last = self.known.len();
        self.known.push(keys);
    }
}

/// The keys of a point's attributes, and what stands before their values.
#[derive(Default)]
struct Keys {
    known: Vec<(Key, Vec<u8>)>,
    /// Several keys become the same label.
    collide: bool,
}

impl Keys {
    fn new<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> Self {
        let mut keys = Self::default();
        for attribute in attributes {
            let mut text = b",".to_vec();
            if keys.known.is_empty() {
                text.clear();
            }
            let start = text.len();
            push_label(&mut text, attribute.key.as_str());
            text.extend_from_slice(b"=\"");
            let label = &text[start..];
            keys.collide |= keys
                .known
                .iter()
                .any(|(_, other)| other.strip_prefix(b",").unwrap_or(other) == label);
            keys.known.push((attribute.key.clone(), text));
        }
        keys
    }

    /// Appends the labels of a point with these keys. `false`: it has others.
    fn push<'a>(&self, page: &mut Vec<u8>, attributes: impl Iterator<Item = &'a KeyValue>) -> bool {
        let mut known = self.known.iter();
        for attribute in attributes {
            match known.next() {
                Some((key, text)) if same(key.as_str(), attribute.key.as_str()) => {
                    page.extend_from_slice(text);
                    push_attribute(page, &attribute.value);
                    page.push(b'"');
                }
                _ => return false,
            }
        }
        known.next().is_none()
    }
}

fn push_attribute(line: &mut Vec<u8>, value: &Value) {
    match value {
        Value::String(text) => push_escaped(line, text.as_str(), true),
        Value::I64(number) => number.push(line),
        other => push_escaped(line, &other.as_str(), true),
    }
}

/// Labels and values of attributes. Where several become the same label, their values are joined, in the order of
/// their keys.
fn joined(mut attributes: Vec<(&str, Vec<u8>, &Value)>) -> Vec<(Vec<u8>, String)> {
    attributes.sort_by_key(|(key, ..)| *key);
    let mut joined: Vec<(Vec<u8>, String)> = Vec::new();
    for (_, label, value) in attributes {
        let value = value.as_str();
        match joined.iter_mut().find(|(other, _)| *other == label) {
            Some((_, values)) => *values = format!("{values};{value}"),
            None => joined.push((label, value.into_owned())),
        }
    }
    joined
}

/// Attributes as labels, with commas between them.
fn push_joined(labels: &mut Vec<u8>, attributes: Vec<(&str, &Value)>) {
    let attributes = attributes.into_iter().map(|(key, value)| {
        let mut label = Vec::new();
        push_label(&mut label, key);
        (key, label, value)
    });
    let joined = joined(attributes.collect());
    for (number, (label, value)) in joined.iter().enumerate() {
        if number > 0 {
            labels.push(b',');
        }
        labels.extend_from_slice(label);
        push_value(labels, value);
    }
}
