//! One binary for all behaviours: a file a behaviour, each named in the sentence it proves.

#[cfg(all(
    feature = "axum",
    feature = "console",
    feature = "otlp-grpc",
    feature = "otlp-http"
))]
mod image_proxy;
