//! One binary for all behaviours: a file a behaviour.
#![allow(unreachable_pub)] // modules of a test binary are reachable by nobody else

mod cancelled_requests;
mod completed_requests;
mod current_context;
mod failed_requests;
mod filter_and_trust;
mod requests_in_progress;
mod routes_and_methods;
mod stages;
mod support;
