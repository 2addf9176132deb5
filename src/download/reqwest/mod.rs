//! Downloads through reqwest: [`DownloadLayer::reqwest`](super::DownloadLayer::reqwest).
mod client;
mod credentials;
mod redirect;
mod retry;
mod service;

pub use self::{
    client::{ReqwestClient, ReqwestError},
    service::{ReqwestFuture, ReqwestService},
};
