//! HTTP and gRPC as OpenTelemetry's semantic conventions see them, for servers and clients alike.

mod grpc;
mod http;
mod server;

pub(crate) use self::{
    grpc::GrpcCode,
    http::{
        KnownMethods, OTHER, content_length, default_port, int, is_bodiless, number, parse_length,
        protocol_version, scheme,
    },
    server::{ServerText, host, server},
};
