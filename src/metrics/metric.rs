/// The name, unit and description of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Metric {
    /// By the conventions of OpenTelemetry: `memory.allocated`.
    pub name: &'static str,
    /// A unit of UCUM, such as `By` or `s`, or an annotation such as `{task}`.
    pub unit: &'static str,
    /// One sentence.
    pub description: &'static str,
}
