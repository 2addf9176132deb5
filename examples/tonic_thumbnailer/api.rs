//! `thumbnailer.proto` in Rust: its messages for prost, and its service for tonic.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tonic::{
    Request, Status,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService},
};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::service;

pub(crate) const RESIZE: &str = "/thumbs.v1.Thumbnailer/Resize";
pub(crate) const RESIZE_MANY: &str = "/thumbs.v1.Thumbnailer/ResizeMany";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResizeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) source: Bytes,
    #[prost(uint32, tag = "2")]
    pub(crate) width: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResizeManyRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) source: Bytes,
    #[prost(uint32, repeated, tag = "2")]
    pub(crate) widths: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Picture {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) jpeg: Bytes,
    #[prost(uint32, tag = "2")]
    pub(crate) width: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) height: u32,
}

/// Dispatches calls by their path, as generated services do.
#[derive(Clone, Debug)]
pub(crate) struct ThumbnailerServer;

impl NamedService for ThumbnailerServer {
    const NAME: &'static str = "thumbs.v1.Thumbnailer";
}

impl Service<http::Request<Body>> for ThumbnailerServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            Ok(match request.uri().path() {
                RESIZE => {
                    let codec = ProstCodec::<Picture, ResizeRequest>::default();
                    let resize =
                        service_fn(|request: Request<ResizeRequest>| service::resize(request));
                    Grpc::new(codec).unary(resize, request).await
                }
                RESIZE_MANY => {
                    let codec = ProstCodec::<Picture, ResizeManyRequest>::default();
                    let resize_many = service_fn(|request: Request<ResizeManyRequest>| {
                        service::resize_many(request)
                    });
                    Grpc::new(codec)
                        .server_streaming(resize_many, request)
                        .await
                }
                _ => Status::unimplemented("there is no such method").into_http(),
            })
        })
    }
}
