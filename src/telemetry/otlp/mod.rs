//! OTLP: from spans and log records to bytes for the collector.

#[cfg_attr(
    not(test),
    expect(
        dead_code,
        unused_imports,
        reason = "the queue does not hold bytes yet"
    )
)]
mod encode;
