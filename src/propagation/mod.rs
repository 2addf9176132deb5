//! The propagation formats.
