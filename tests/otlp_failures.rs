//! Whatever the collector does.
