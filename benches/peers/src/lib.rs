//! The code of `MIGRATING.md`, before and after, as tests: `cargo test --doc --features migrating`.
#![cfg(all(doctest, feature = "migrating"))]
#![doc = include_str!("../../../MIGRATING.md")]
